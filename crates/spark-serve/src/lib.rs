//! An accept loop for hyper services: slow clients, connection caps, graceful drain.
#![forbid(unsafe_code)]
