//! `GET /`: what a person with a browser sees.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Html;
use spark_headers::CspNonce;

use crate::app::App;

const PAGE: &str = include_str!("page.html");

pub(crate) async fn page(State(app): State<Arc<App>>, nonce: CspNonce) -> Html<String> {
    let listening = app.listening.get();
    let public = listening.map_or(app.config.server.listen, |l| l.public);
    let admin = listening.map_or(app.config.server.listen, |l| l.admin);
    let data_dir = app.config.server.data_dir.display().to_string();
    let [admin, data_dir] = shown(public, admin, data_dir);
    let public = public.to_string();
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
        .replace("{{data_dir}}", &escape(&data_dir));
    Html(page)
}

/// Where operators go, and where the keys are: strangers on a network learn neither.
fn shown(public: SocketAddr, admin: SocketAddr, data_dir: String) -> [String; 2] {
    if public.ip().is_loopback() {
        return [admin.to_string(), data_dir];
    }
    let admin = match admin == public {
        true => public.to_string(),
        false => "ADMIN_LISTEN".to_owned(),
    };
    [admin, "DATA_DIR".to_owned()]
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
    fn a_public_page_tells_nothing_of_the_inside() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (home, open) = (at("127.0.0.1:8080"), at("0.0.0.0:8080"));
        let inside = at("10.0.0.5:9464");
        let dir = || "/var/lib/spark".to_owned();
        assert_eq!(
            shown(home, inside, dir()),
            ["10.0.0.5:9464", "/var/lib/spark"]
        );
        assert_eq!(shown(open, inside, dir()), ["ADMIN_LISTEN", "DATA_DIR"]);
        assert_eq!(shown(open, open, dir()), ["0.0.0.0:8080", "DATA_DIR"]);
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<a href='x'>&"), "&lt;a href=&#39;x&#39;&gt;&amp;");
    }
}
