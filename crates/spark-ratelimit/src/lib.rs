//! Rate limits for tower services: GCRA in bounded memory, per principal or per network.
#![forbid(unsafe_code)]
