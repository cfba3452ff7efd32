//! What a request and a key cost in memory. The figures in the manual come from here.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use common::{START, house_with, name, user_key, with_another_secret};
use http::{Request, Response};
use spark_auth::{
    AuthLayer, Authenticator, Change, Changes, KeyRecord, KeyStore, Loaded, NewKey, RequireLayer,
    StoreError,
};
use spark_core::{ClientIp, Context, Name};
use tower::{Service, ServiceBuilder, service_fn};

#[test]
fn verifying_allocates_nothing() {
    let house = house_with(100);
    let expiring = NewKey::new(name("acme")).expires_at(START + Duration::from_secs(3_600));
    let bound = NewKey::new(name("acme")).ip_allow(["192.0.2.0/24".parse().unwrap()]);
    let keys = [
        house.issue().key,
        house.auth.issue(expiring).unwrap().key,
        house.auth.issue(bound).unwrap().key,
    ];
    let client_ip = Some(ClientIp::new([192, 0, 2, 7].into()));
    // The thread takes its slot in the index.
    house.auth.verify("junk").unwrap_err();
    house.auth.verify(house.issue().key.expose()).unwrap();
    for key in &keys {
        // The first use is noted, the second is not, and one a minute later is again.
        for passed in [0, 1, 60] {
            house.clock.advance(Duration::from_secs(passed));
            let cost = measure(|| {
                house.auth.verify_from(key.expose(), client_ip).unwrap();
            });
            assert_eq!(cost.count_total, 0);
        }
    }
    // A refusal pays for its audit event: the id, as a name.
    let wrong = with_another_secret(&keys[0]);
    let unknown = user_key();
    house.events.take();
    for key in [wrong, unknown] {
        let cost = measure(|| drop(house.auth.verify(key.expose())));
        assert!(cost.count_total <= 3, "{cost:?}");
    }
}

#[test]
fn the_layers_allocate_nothing_for_a_request_that_passes() {
    let house = house_with(100);
    let key = house.issue().key;
    let mut service = ServiceBuilder::new()
        .layer(AuthLayer::required(house.auth.clone()))
        .layer(RequireLayer::user())
        .service(service_fn(|_: Request<()>| {
            std::future::ready(Ok::<_, Infallible>(Response::new(String::new())))
        }));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut allocations = Vec::new();
    for _ in 0..3 {
        let mut request = Request::new(());
        let value = format!("Bearer {}", key.expose()).parse().unwrap();
        request.headers_mut().insert("authorization", value);
        let context = Context::new(house.clock.clock().now());
        request.extensions_mut().insert(context);
        let cost = measure(|| {
            let response = runtime.block_on(service.call(request)).unwrap();
            assert_eq!(response.status(), 200);
        });
        allocations.push(cost.count_total);
    }
    // The first call resolves the counters and the thread's slot in the index.
    assert_eq!(allocations[1..], [0, 0], "{allocations:?}");
}

/// Records as a file gives them: nothing is shared between them.
#[derive(Debug)]
struct Lines(Vec<String>);

impl KeyStore for Lines {
    fn load(&self) -> Result<Loaded, StoreError> {
        let records = self.0.iter().map(|line| KeyRecord::decode(line).unwrap());
        Ok(Loaded {
            records: records.collect(),
            sequence: 0,
        })
    }

    fn append(&self, _: &[Change]) -> Result<u64, StoreError> {
        Ok(1)
    }

    fn changes_since(&self, _: u64) -> Result<Changes, StoreError> {
        Ok(Changes::Unknown)
    }

    fn touch(&self, _: &[(Name, Duration)]) -> Result<(), StoreError> {
        Ok(())
    }
}

#[test]
fn a_key_takes_less_than_a_kilobyte_of_memory() {
    const KEYS: usize = 2_000;
    let house = house_with(10_000);
    let lines = (0..KEYS).map(|_| {
        let new = NewKey::new(name("acme-europe"))
            .label("nightly import")
            .tier(name("pro"));
        house
            .auth
            .issue(new.scopes([name("metrics:read")]))
            .unwrap()
            .record
            .encode()
    });
    let lines = Arc::new(Lines(lines.collect()));
    let mut kept = None;
    let cost = measure(|| {
        let builder = Authenticator::builder()
            .pepper(house.pepper.clone())
            .store(lines.clone());
        kept = Some(builder.build().unwrap());
    });
    assert_eq!(kept.map(|auth| auth.len()), Some(KEYS));
    let each = usize::try_from(cost.bytes_current).unwrap() / KEYS;
    println!("{each} bytes for each key");
    assert!((400..800).contains(&each), "{each}");
}
