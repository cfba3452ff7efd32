//! No secret reaches a log, a `Debug`, an error or an answer.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::{house, master_key, user_key, with_another_secret};
use http::Request;
use http_body_util::{BodyExt, Empty, Full};
use spark_auth::{
    AuthLayer, Authenticator, FileStore, MasterVerifier, NewKey, Pepper, RequireLayer,
};
use spark_core::Name;
use tower::{ServiceBuilder, ServiceExt, service_fn};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a8_nothing_that_is_written_holds_a_secret() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut shown = String::new();

    let dir = tempfile::tempdir().unwrap();
    let pepper = Pepper::generate().unwrap();
    let master = master_key();
    let own_secret = "8f2K-zR41-vQ9x-Lm3T-w7Yb-Hd6S-cJ0p";
    let auth = Authenticator::builder()
        .pepper(pepper.clone())
        .store(FileStore::open(dir.path()).unwrap())
        .master(MasterVerifier::of(&pepper, &master))
        .previous_master(MasterVerifier::from_secret(&pepper, own_secret).unwrap())
        .build()
        .unwrap();
    let issued = auth.issue(NewKey::new(Name::new("acme").unwrap())).unwrap();
    let rotated = auth
        .rotate(
            issued.record.id.as_str(),
            std::time::Duration::from_secs(60),
        )
        .unwrap();
    let revoked = auth.issue(NewKey::new(Name::new("acme").unwrap())).unwrap();
    auth.revoke(revoked.record.id.as_str()).unwrap();

    let layer = ServiceBuilder::new()
        .layer(AuthLayer::required(auth.clone()))
        .layer(RequireLayer::user())
        .into_inner();
    shown += &format!(
        "{auth:?} {issued:?} {rotated:?} {pepper:?} {layer:?} {:?}",
        auth.list()
    );
    shown += &serde_json::to_string(&auth.list()).unwrap();

    let unknown = user_key();
    let wrong = with_another_secret(&issued.key);
    let broken = format!("{}x", master.expose());
    let secrets = [
        master.expose(),
        own_secret,
        issued.key.expose(),
        rotated.key.expose(),
        revoked.key.expose(),
        unknown.expose(),
        wrong.expose(),
        broken.as_str(),
    ];
    for secret in secrets {
        let inner = service_fn(async |_: Request<Empty<Bytes>>| {
            Ok::<_, std::convert::Infallible>(http::Response::new(Full::<Bytes>::from("fine")))
        });
        let request = Request::get("/")
            .header("x-api-key", secret)
            .body(Empty::new())
            .unwrap();
        let service = ServiceBuilder::new().layer(layer.clone()).service(inner);
        let (parts, body) = service.oneshot(request).await.unwrap().into_parts();
        shown += &format!("{parts:?} {body:?}");
        shown += std::str::from_utf8(&body.collect().await.unwrap().to_bytes()).unwrap();
        shown += &format!("{:?}", spark_auth::UserKey::parse(secret));
        shown += &format!("{:?}", MasterVerifier::from_secret(&pepper, secret));
        shown += &format!("{:?}", auth.verify(secret));
    }

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for event in ["issued", "rotated", "revoked", "denied", "master_used"] {
        assert!(log.contains(event), "the audit has no {event}");
    }
    let mac = pepper_macs(dir.path());
    let written = format!("{log} {shown}");
    for secret in secrets {
        // Any eight characters of a secret are too many; ids and markers are public.
        let secret_part = match secret.split_once("_live_") {
            Some((_, body)) => &body[12..44],
            None => secret,
        };
        for part in secret_part.as_bytes().windows(8) {
            let part = std::str::from_utf8(part).unwrap();
            assert!(!written.contains(part), "a part of a secret was written");
        }
    }
    let hex = pepper.expose_hex();
    assert!(!written.contains(&hex[..16]));
    // As a derived `Debug` would show it, and as a file would hold it.
    let bytes: Vec<u8> = (0..32)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let list = format!("{:?}", &bytes[..8]);
    let list = list.trim_matches(['[', ']']);
    assert!(!written.contains(list), "the pepper was written");
    assert!(!written.contains(&list.replace(", ", ",\n    ")));
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let file = std::fs::read(file.unwrap().path()).unwrap();
        let holds = |part: &[u8]| file.windows(part.len()).any(|found| found == part);
        for part in bytes.chunks(8) {
            assert!(!holds(part), "a part of the pepper stands in a file");
        }
        assert!(!holds(&hex.as_bytes()[..16]) && !holds(list.as_bytes()));
    }
    for mac in mac {
        assert!(!written.contains(&mac), "a MAC was written");
    }
}

/// The MACs as they stand in the store's file.
fn pepper_macs(folder: &std::path::Path) -> Vec<String> {
    let file = std::fs::read(folder.join("keys.redb")).unwrap();
    let file = String::from_utf8_lossy(&file);
    let macs: Vec<_> = (file.split("\"mac\":\"").skip(1))
        .map(|rest| rest[..64].to_owned())
        .collect();
    assert!(macs.len() >= 3);
    macs
}

#[test]
fn a8_debug_of_everything_public_is_quiet() {
    let house = house();
    let issued = house.issue();
    let shown = format!("{:?} {:?} {:?}", house.auth, house.store, issued);
    assert!(!shown.contains(&issued.record.mac.to_hex()));
    assert!(!shown.contains(&issued.key.expose()[issued.key.expose().len() - 38..]));
    // Nor who the callers are: the audit of the house above keeps that, this one keeps nothing.
    let auth = Authenticator::builder()
        .pepper(house.pepper.clone())
        .store(house.store.clone())
        .build()
        .unwrap();
    assert_eq!(auth.len(), 1);
    let shown = format!("{:?} {:?}", house.store, AuthLayer::required(auth));
    assert!(!shown.contains(issued.record.tenant.as_str()), "{shown}");
    assert!(!shown.contains(issued.record.id.as_str()), "{shown}");
}
