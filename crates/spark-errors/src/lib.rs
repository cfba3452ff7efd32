//! Error tracking for tower services: grouped, redacted, bounded, handed to hooks.
#![forbid(unsafe_code)]
