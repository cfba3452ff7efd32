//! Circuit breaker, timeouts, bulkhead and failover for calls to AI providers.
#![forbid(unsafe_code)]
