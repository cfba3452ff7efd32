//! The vocabulary of the SPARK crates: who calls, from where, how a refusal is written, what time it is.
#![forbid(unsafe_code)]
