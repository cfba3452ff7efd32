//! What a key or an exemption may look at.

use std::fmt;

use http::{Extensions, HeaderMap, Method, Request, Uri};

/// The head of a request, borrowed: what it is decided by.
///
/// # Example
/// ```
/// use spark_ratelimit::Head;
/// let request = http::Request::get("/livez").body(()).unwrap();
/// assert_eq!(Head::of(&request).uri.path(), "/livez");
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target.
    pub uri: &'a Uri,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// What the layers further out found out, such as [`spark_core::Context`].
    pub extensions: &'a Extensions,
}

impl<'a> Head<'a> {
    /// The head of this request.
    ///
    /// # Example
    /// ```
    /// # use spark_ratelimit::Head;
    /// let request = http::Request::post("/").body("text").unwrap();
    /// assert_eq!(Head::of(&request).method, "POST");
    /// ```
    pub fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

/// Without the header fields and the query, which may hold credentials.
impl fmt::Debug for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head")
            .field("method", self.method)
            .field("path", &self.uri.path())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_credential() {
        let request = Request::get("/a?key=secret")
            .header("authorization", "Bearer secret")
            .body(())
            .unwrap();
        assert!(!format!("{:?}", Head::of(&request)).contains("secret"));
    }
}
