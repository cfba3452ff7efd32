//! A tenant-safe cache of AI answers for tower services, streams included.
#![forbid(unsafe_code)]
