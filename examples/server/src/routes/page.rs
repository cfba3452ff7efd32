//! `GET /`: what a person with a browser sees.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Html;
use spark_headers::CspNonce;

use crate::app::App;

const PAGE: &str = include_str!("page.html");

pub(crate) async fn page(State(app): State<Arc<App>>, nonce: CspNonce) -> Html<String> {
    let listening = app.listening.get();
    let public = listening
        .map_or(app.config.server.listen, |l| l.public)
        .to_string();
    let admin = listening
        .map_or(app.config.server.listen, |l| l.admin)
        .to_string();
    // All of it is the operator's or ours; it is escaped all the same.
    let page = PAGE
        .replace("{{nonce}}", nonce.as_str())
        .replace("{{version}}", env!("CARGO_PKG_VERSION"))
        .replace("{{models}}", &escape(&app.config.models().join(", ")))
        .replace(
            "{{model}}",
            &escape(app.config.models().first().unwrap_or(&"")),
        )
        .replace("{{address}}", &escape(&public))
        .replace("{{operators}}", &escape(&admin))
        .replace(
            "{{data_dir}}",
            &escape(&app.config.server.data_dir.display().to_string()),
        );
    Html(page)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<a href='x'>&"), "&lt;a href=&#39;x&#39;&gt;&amp;");
    }
}
