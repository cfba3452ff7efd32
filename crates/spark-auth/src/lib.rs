//! API keys for tower services: issue, verify, rotate, revoke, with only a MAC at rest.
#![forbid(unsafe_code)]
