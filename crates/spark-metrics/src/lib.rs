//! Prometheus metrics for tower services, with bounded cardinality.
#![forbid(unsafe_code)]
