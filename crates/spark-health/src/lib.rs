//! Live, ready and detailed health for tower services.
#![forbid(unsafe_code)]
