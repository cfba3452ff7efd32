//! Security headers for tower services, on every response.
#![forbid(unsafe_code)]
