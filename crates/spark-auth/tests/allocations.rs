//! What a request and a key cost in memory. The figures in the manual come from here.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use common::{
    House, START, ThreeFailures, auth_on, house_with, name, user_key, with_another_secret,
};
use http::{Request, Response};
use spark_auth::{
    AuthLayer, Authenticator, Change, Changes, KeyRecord, KeyStore, Loaded, MemoryStore, NewKey,
    Rejected, RequireLayer, StoreError, UserKey,
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
}

#[test]
fn a_refusal_allocates_the_id_for_its_audit_event_and_nothing_else() {
    let auth = auth_on(MemoryStore::new());
    let issue = || auth.issue(NewKey::new(name("acme"))).unwrap();
    let (known, revoked) = (issue(), issue());
    auth.revoke(revoked.record.id.as_str()).unwrap();
    auth.verify(known.key.expose()).unwrap();
    let text = known.key.expose();
    let typo = format!("{}{}", &text[..text.len() - 1], "-");
    let slip = text.replace("_sk_", "_mk_");
    let long = "a".repeat(1 << 20);
    let wrong = with_another_secret(&known.key);
    let unknown = user_key();
    for (text, reason, allocations) in [
        (typo.as_str(), Rejected::Malformed, 0),
        (&slip, Rejected::Malformed, 0),
        (&long, Rejected::Malformed, 0),
        (wrong.expose(), Rejected::WrongSecret, 1),
        (unknown.expose(), Rejected::UnknownKey, 1),
        (revoked.key.expose(), Rejected::Revoked, 1),
    ] {
        let cost = measure(|| assert_eq!(auth.verify(text), Err(reason)));
        assert_eq!(cost.count_total, allocations, "{reason:?}: {cost:?}");
    }
}

#[test]
fn the_layers_allocate_nothing_for_a_request_that_passes() {
    let house = house_with(100);
    let key = house.issue().key;
    let layer = AuthLayer::required(house.auth.clone());
    let allocations = [(); 3].map(|()| through(&layer, &house, &key, 200));
    // The first call resolves the counters and the thread's slot in the index.
    assert_eq!(allocations[1..], [0, 0], "{allocations:?}");
}

#[test]
fn what_an_answer_that_refuses_allocates() {
    let house = house_with(100);
    let auth = auth_on(MemoryStore::new());
    let layer = AuthLayer::required(auth.clone());
    let key = auth.issue(NewKey::new(name("acme"))).unwrap().key;
    let stranger = user_key();
    let throttled = layer.clone().throttle(Arc::new(ThreeFailures::default()));
    for _ in 0..4 {
        through(&layer, &house, &stranger, 401);
    }
    let refused = through(&layer, &house, &stranger, 401);
    for _ in 0..3 {
        through(&throttled, &house, &stranger, 401);
    }
    through(&throttled, &house, &stranger, 429);
    let too_many = through(&throttled, &house, &stranger, 429);
    through(&throttled, &house, &key, 200);
    // Whoever has the right key is let pass beside those who guess, and pays nothing for them.
    assert_eq!(through(&throttled, &house, &key, 200), 0);
    println!("{refused} allocations for a 401, {too_many} for a 429");
    // The audit event's id is one; the rest is the problem, its headers and its body.
    assert!(refused <= 8 && too_many <= 7, "{refused}, {too_many}");
}

/// How many allocations it takes to answer a request with this key.
fn through(layer: &AuthLayer, house: &House, key: &UserKey, status: u16) -> u64 {
    let mut service = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(RequireLayer::user())
        .service(service_fn(|_: Request<()>| {
            std::future::ready(Ok::<_, Infallible>(Response::new(String::new())))
        }));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut request = Request::new(());
    let value = format!("Bearer {}", key.expose()).parse().unwrap();
    request.headers_mut().insert("authorization", value);
    let client_ip = ClientIp::new([192, 0, 2, 7].into());
    let context = Context::new(house.clock.clock().now()).with_client_ip(client_ip);
    request.extensions_mut().insert(context);
    let mut response = None;
    let cost = measure(|| response = Some(runtime.block_on(service.call(request)).unwrap()));
    assert_eq!(response.map(|it| it.status().as_u16()), Some(status));
    cost.count_total
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
