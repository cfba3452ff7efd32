//! Input limits, Unicode cleaning and prompt-injection findings for tower services.
#![forbid(unsafe_code)]
