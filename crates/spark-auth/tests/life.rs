//! The life of a key between its issue and its end.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use common::{
    Gated, House, START, ThreeFailures, auth_on, house, house_with, name, user_key,
    with_another_secret,
};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use ipnet::IpNet;
use spark_auth::{
    AuditEvent, AuditSink, AuthError, AuthLayer, Authenticator, BuildError, Change, Changes,
    Environment, Issued, KeyState, KeyStatus, KeyStore, Loaded, MemoryStore, NewKey, Pepper,
    Rejected, StoreError, UserKey,
};
use spark_core::{ClientIp, Clock, Context, Name};
use tower::{ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn new() -> NewKey {
    NewKey::new(name("acme"))
}

fn stored_use(store: &impl KeyStore, key: &UserKey) -> Option<Duration> {
    let records = store.load().unwrap().records;
    let record = records.into_iter().find(|it| it.id.as_str() == key.id());
    record.unwrap().last_used_at
}

#[test]
fn a_suspended_key_rests_until_it_is_resumed() {
    let house = house();
    let issued = house.issue();
    let id = issued.record.id.as_str();
    let elsewhere = || house.builder().build().unwrap();
    house.clock.advance(5 * SECOND);
    let info = house.auth.suspend(id).unwrap();
    assert_eq!(info.status, KeyStatus::Suspended);
    assert_eq!(info.suspended_at, Some(START.as_secs() + 5));
    for auth in [house.auth.clone(), elsewhere()] {
        let right = auth.verify(issued.key.expose());
        assert_eq!(right, Err(Rejected::Suspended));
        let wrong = auth.verify(with_another_secret(&issued.key).expose());
        assert_eq!(wrong, Err(Rejected::WrongSecret));
    }
    house.clock.advance(SECOND);
    assert_eq!(house.auth.suspend(id).unwrap(), info);
    let status = KeyStatus::Suspended;
    assert!(matches!(
        house.auth.rotate(id, SECOND),
        Err(AuthError::NotActive { status: found }) if found == status
    ));
    let resumed = house.auth.resume(id).unwrap();
    assert_eq!(
        (resumed.status, resumed.suspended_at),
        (KeyStatus::Active, None)
    );
    assert_eq!(house.auth.resume(id).unwrap(), resumed);
    for auth in [house.auth.clone(), elsewhere()] {
        assert!(auth.verify(issued.key.expose()).is_ok());
    }
    let names: Vec<_> = house.events.take().iter().map(AuditEvent::name).collect();
    assert_eq!(
        names,
        ["issued", "suspended", "denied", "denied", "resumed"]
    );
}

#[test]
fn what_has_ended_is_neither_suspended_nor_resumed() {
    let house = house();
    let revoked = house.issue().record.id;
    house.auth.suspend(revoked.as_str()).unwrap();
    house.auth.revoke(revoked.as_str()).unwrap();
    let expired = house
        .auth
        .issue(new().expires_at(START + SECOND))
        .unwrap()
        .record
        .id;
    house.auth.suspend(expired.as_str()).unwrap();
    house.clock.advance(SECOND);
    for (id, expected) in [(revoked, KeyStatus::Revoked), (expired, KeyStatus::Expired)] {
        for answer in [
            house.auth.suspend(id.as_str()),
            house.auth.resume(id.as_str()),
        ] {
            let Err(AuthError::NotActive { status }) = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(status, expected);
        }
    }
    for answer in [house.auth.suspend("nobody"), house.auth.resume("nobody")] {
        assert!(matches!(answer, Err(AuthError::NotFound)));
    }
}

#[test]
fn a_key_that_is_bound_to_networks_works_from_there_alone() {
    let house = house();
    let networks = ["192.0.2.9/24", "::ffff:10.0.0.0/104", "2001:db8::/32"];
    let networks = networks.map(|text| text.parse::<IpNet>().unwrap());
    let issued = house
        .auth
        .issue(new().owner("ada").ip_allow(networks))
        .unwrap();
    let texts: Vec<_> = issued
        .record
        .ip_allow
        .iter()
        .map(IpNet::to_string)
        .collect();
    assert_eq!(texts, ["192.0.2.0/24", "10.0.0.0/8", "2001:db8::/32"]);
    let from = |address: &str| {
        let ip = ClientIp::new(address.parse().unwrap());
        house
            .auth
            .verify_from(issued.key.expose(), Some(ip))
            .map(drop)
    };
    for address in [
        "192.0.2.7",
        "::ffff:192.0.2.7",
        "10.255.0.1",
        "2001:db8:1::1",
    ] {
        assert_eq!(from(address), Ok(()), "{address}");
    }
    for address in [
        "192.0.3.7",
        "11.0.0.1",
        "2001:db9::1",
        "::1",
        "::ffff:8.8.8.8",
    ] {
        assert_eq!(from(address), Err(Rejected::Address), "{address}");
    }
    assert_eq!(
        house.auth.verify(issued.key.expose()),
        Err(Rejected::Address)
    );
    // Nobody learns of the list who has not the secret.
    let outside = Some(ClientIp::new([8, 8, 8, 8].into()));
    let wrong = with_another_secret(&issued.key);
    let answer = house.auth.verify_from(wrong.expose(), outside);
    assert_eq!(answer, Err(Rejected::WrongSecret));
    // What follows it is bound as well.
    let fresh = house
        .auth
        .rotate(issued.record.id.as_str(), SECOND)
        .unwrap();
    assert_eq!(fresh.record.ip_allow, issued.record.ip_allow);
    assert_eq!(fresh.record.owner.as_deref(), Some("ada"));
    assert_eq!(
        house.auth.verify(fresh.key.expose()),
        Err(Rejected::Address)
    );
}

#[test]
fn an_environment_is_a_label_unless_one_is_chosen() {
    let house = house();
    let test = house
        .auth
        .issue(new().environment(Environment::Test))
        .unwrap();
    assert!(house.auth.verify(test.key.expose()).is_ok());
    let live = house
        .builder()
        .environments(&[Environment::Live])
        .build()
        .unwrap();
    assert_eq!(live.verify(test.key.expose()), Err(Rejected::Environment));
    assert!(
        live.verify(house.issue().key.expose()).is_err(),
        "not refreshed yet"
    );
    let error = live
        .issue(new().environment(Environment::Test))
        .unwrap_err();
    assert_eq!(error.field(), Some("environment"));
    // Nor is such a key made by a rotation.
    for overlap in [Duration::ZERO, SECOND] {
        let error = live.rotate(test.key.id(), overlap).unwrap_err();
        assert_eq!(error.field(), Some("environment"));
    }
    let none = house.builder().environments(&[]).build();
    assert!(matches!(none, Err(BuildError::NoEnvironment)));
}

#[test]
fn last_uses_are_noted_once_a_minute_and_written_in_one_go() {
    let store = Gated::default();
    let House { clock, pepper, .. } = house();
    let build = || {
        let builder = Authenticator::builder().clock(clock.clock());
        builder
            .pepper(pepper.clone())
            .store(store.clone())
            .build()
            .unwrap()
    };
    let auth = build();
    let keys = [
        auth.issue(new()).unwrap().key,
        auth.issue(new()).unwrap().key,
    ];
    let used = |auth: &Authenticator, key: &UserKey| auth.get(key.id()).unwrap().last_used_at;
    let start = START.as_secs();
    assert_eq!(
        (used(&auth, &keys[0]), auth.flush().unwrap().last_uses),
        (None, 0)
    );

    for _ in 0..100 {
        for key in &keys {
            auth.verify(key.expose()).unwrap();
        }
        clock.advance(SECOND / 2);
    }
    auth.verify(with_another_secret(&keys[0]).expose())
        .unwrap_err();
    assert_eq!(used(&auth, &keys[0]), Some(start));
    assert_eq!((auth.flush().unwrap().last_uses, store.touched()), (2, 1));
    assert_eq!((auth.flush().unwrap().last_uses, store.touched()), (0, 1));
    assert_eq!(stored_use(&store, &keys[0]), Some(START));

    clock.advance(10 * SECOND);
    auth.verify(keys[0].expose()).unwrap();
    assert_eq!(used(&auth, &keys[0]), Some(start + 60));
    // A store that fails is told again, and a change of the record loses nothing.
    store.fail(true);
    assert!(matches!(auth.flush(), Err(AuthError::Store(_))));
    store.fail(false);
    auth.suspend(keys[0].id()).unwrap();
    auth.resume(keys[0].id()).unwrap();
    let fresh = auth.rotate(keys[0].id(), SECOND).unwrap().key;
    assert_eq!(used(&auth, &keys[0]), Some(start + 60));
    assert_eq!(used(&auth, &fresh), None);
    assert_eq!(auth.flush().unwrap().last_uses, 1);
    let again = build();
    assert_eq!(used(&again, &keys[0]), Some(start + 60));
    assert_eq!(used(&again, &keys[1]), Some(start));
}

#[test]
fn a_use_is_never_lost_to_a_change_of_the_record() {
    let auth = auth_on(Gated::default());
    let key = auth.issue(new()).unwrap().key;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..200 {
                auth.suspend(key.id()).unwrap();
                auth.resume(key.id()).unwrap();
            }
        });
        while auth.verify(key.expose()).is_err() {}
    });
    assert!(auth.get(key.id()).unwrap().last_used_at.is_some());
    assert_eq!(auth.flush().unwrap().last_uses, 1);
}

#[test]
fn a12_a_key_leaves_the_previous_pepper_as_it_is_used() {
    let house = house_with(400);
    let used: Vec<_> = (0..300).map(|_| house.issue()).collect();
    let (idle, suspended) = (house.issue(), house.issue());
    let fresh = Pepper::generate().unwrap();
    let moving = Authenticator::builder()
        .clock(house.clock.clock())
        .pepper(fresh.clone())
        .previous_pepper(house.pepper.clone())
        .store(house.store.clone())
        .build()
        .unwrap();
    for issued in &used {
        moving.verify(issued.key.expose()).unwrap();
        moving.verify(issued.key.expose()).unwrap();
    }
    // A change between use and flush goes first; the MAC is made anew at the next use.
    moving.verify(suspended.key.expose()).unwrap();
    moving.suspend(suspended.record.id.as_str()).unwrap();
    let flushed = moving.flush().unwrap();
    assert_eq!((flushed.renewed, flushed.last_uses), (300, 301));
    assert_eq!(moving.flush().unwrap().renewed, 0);
    moving.resume(suspended.record.id.as_str()).unwrap();
    moving.verify(suspended.key.expose()).unwrap();
    assert_eq!(moving.flush().unwrap().renewed, 1);

    let fingerprint = |key: &UserKey| moving.get(key.id()).unwrap().pepper;
    assert_eq!(fingerprint(&used[0].key), fresh.id());
    assert_eq!(fingerprint(&idle.key), house.pepper.id());
    let json = serde_json::to_value(moving.get(idle.key.id()).unwrap()).unwrap();
    assert_eq!(json["pepper"], house.pepper.id().to_string());
    assert_eq!(
        moving.get(used[0].key.id()).unwrap().last_used_at,
        Some(START.as_secs())
    );

    let builder = || {
        let builder = Authenticator::builder().clock(house.clock.clock());
        builder.pepper(fresh.clone()).store(house.store.clone())
    };
    let error = builder().build();
    assert!(matches!(
        error,
        Err(BuildError::WrongPepper { keys: 1, .. })
    ));
    moving.revoke(idle.record.id.as_str()).unwrap();
    let moved = builder().build().unwrap();
    for issued in used.iter().chain([&suspended]) {
        assert!(moving.verify(issued.key.expose()).is_ok());
        assert!(moved.verify(issued.key.expose()).is_ok());
    }
}

#[test]
fn a_store_that_fails_does_not_lose_a_renewal() {
    let store = Gated::default();
    let (old, fresh) = (Pepper::generate().unwrap(), Pepper::generate().unwrap());
    let builder = || Authenticator::builder().store(store.clone());
    let before = builder().pepper(old.clone()).build().unwrap();
    let key = before.issue(new()).unwrap().key;
    let auth = builder()
        .pepper(fresh)
        .previous_pepper(old)
        .build()
        .unwrap();
    auth.verify(key.expose()).unwrap();
    store.fail(true);
    auth.flush().unwrap_err();
    auth.verify(key.expose()).unwrap();
    store.fail(false);
    assert_eq!(auth.flush().unwrap().renewed, 1);
    // The other process has the record as it was: it is told, and by then knows.
    let conflict = before.suspend(key.id());
    assert!(conflict.is_ok(), "{conflict:?}");
    assert_eq!(before.verify(key.expose()), Err(Rejected::UnknownPepper));
}

#[test]
fn more_renewals_than_are_kept_are_made_later() {
    let house = house_with(2_000);
    let keys: Vec<_> = (0..1_100).map(|_| house.issue().key).collect();
    let auth = Authenticator::builder()
        .pepper(Pepper::generate().unwrap())
        .previous_pepper(house.pepper.clone())
        .store(house.store)
        .build()
        .unwrap();
    for renewed in [1_024, 76, 0] {
        for key in &keys {
            auth.verify(key.expose()).unwrap();
        }
        assert_eq!(auth.flush().unwrap().renewed, renewed);
    }
}

#[test]
fn a6_a_system_date_that_was_reset_revives_nothing() {
    let house = house();
    let short = house.auth.issue(new().expires_at(START + SECOND)).unwrap();
    house.clock.advance(2 * SECOND);
    house.issue();
    house.clock.set_unix_time(Duration::ZERO);
    let restarted = house.builder().build().unwrap();
    for auth in [&house.auth, &restarted] {
        assert_eq!(auth.verify(short.key.expose()), Err(Rejected::Expired));
    }
    let late = restarted.issue(new()).unwrap().record;
    assert_eq!(late.created_at, START + 2 * SECOND);
}

#[test]
fn a6_of_the_latest_changes_a_resumption_is_one() {
    let house = house();
    let short = house.auth.issue(new().expires_at(START + SECOND)).unwrap();
    let resting = house.issue();
    house.auth.suspend(resting.key.id()).unwrap();
    house.clock.advance(2 * SECOND);
    house.auth.resume(resting.key.id()).unwrap();
    house.clock.set_unix_time(START);
    let restarted = house.builder().build().unwrap();
    let answer = restarted.verify(short.key.expose());
    assert_eq!(answer, Err(Rejected::Expired));
}

/// Status, headers and body of the answer to a caller at this address.
async fn answer(layer: &AuthLayer, key: &UserKey, address: [u8; 4]) -> String {
    let context = Context::new(Clock::system().now()).with_client_ip(ClientIp::new(address.into()));
    let request = Request::get("/")
        .header("x-api-key", key.expose())
        .extension(context);
    let service = ServiceBuilder::new()
        .layer(layer.clone())
        .service(service_fn(async |_: Request<()>| {
            Ok::<_, std::convert::Infallible>(Response::new(Full::from("in")))
        }));
    let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    format!("{} {:?} {body:?}", parts.status, parts.headers)
}

#[tokio::test]
async fn callers_are_told_nothing_of_networks_environments_and_suspensions() {
    let house = house();
    let bound = new().ip_allow(["192.0.2.0/24".parse().unwrap()]);
    let bound = house.auth.issue(bound).unwrap();
    let test = house
        .auth
        .issue(new().environment(Environment::Test))
        .unwrap();
    let suspended = house.issue();
    house.auth.suspend(suspended.record.id.as_str()).unwrap();
    let auth = house
        .builder()
        .environments(&[Environment::Live])
        .build()
        .unwrap();
    let layer = AuthLayer::required(auth.clone());
    let unknown = answer(&layer, &user_key(), [8, 8, 8, 8]).await;
    for key in [&bound.key, &test.key, &suspended.key] {
        assert_eq!(answer(&layer, key, [8, 8, 8, 8]).await, unknown);
    }
    assert!(
        answer(&layer, &bound.key, [192, 0, 2, 7])
            .await
            .starts_with("200")
    );

    // Nor does an address that is throttled let such a key pass.
    let layer = AuthLayer::required(auth).throttle(Arc::new(ThreeFailures::default()));
    for address in [[8, 8, 8, 8], [192, 0, 2, 7]] {
        for _ in 0..3 {
            assert_eq!(answer(&layer, &user_key(), address).await, unknown);
        }
    }
    for key in [&bound.key, &test.key, &suspended.key] {
        assert!(answer(&layer, key, [8, 8, 8, 8]).await.starts_with("429"));
    }
    assert!(
        answer(&layer, &bound.key, [192, 0, 2, 7])
            .await
            .starts_with("200")
    );
}

/// Issues a key for each that was revoked.
#[derive(Clone, Debug, Default)]
struct Replacing(Arc<OnceLock<Authenticator>>);

impl AuditSink for Replacing {
    fn event(&self, event: &AuditEvent) {
        if let (AuditEvent::Revoked { saved: true, .. }, Some(auth)) = (event, self.0.get()) {
            auth.issue(new()).unwrap();
        }
    }
}

#[test]
fn an_audit_sink_may_change_keys_whatever_it_is_told_by() {
    let (store, sink) = (Gated::default(), Replacing::default());
    let auth = Authenticator::builder()
        .pepper(Pepper::generate().unwrap())
        .store(store.clone())
        .audit(sink.clone())
        .build()
        .unwrap();
    sink.0.set(auth.clone()).unwrap();
    let keys = [(); 2].map(|()| auth.issue(new()).unwrap().key);
    auth.revoke(keys[0].id()).unwrap();
    assert_eq!(auth.len(), 3);
    store.fail(true);
    auth.revoke(keys[1].id()).unwrap_err();
    store.fail(false);
    let (done, is_done) = mpsc::channel();
    let flushing = auth.clone();
    std::thread::spawn(move || done.send(flushing.flush().unwrap().stopped));
    assert_eq!(is_done.recv_timeout(10 * SECOND), Ok(1));
    assert_eq!(auth.len(), 4);
}

/// Refuses each version of one key.
#[derive(Clone, Debug, Default)]
struct Picky(MemoryStore, Arc<Mutex<Option<Name>>>);

impl KeyStore for Picky {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.0.load()
    }

    fn append(&self, changes: &[Change]) -> Result<u64, StoreError> {
        let refused = self.1.lock().unwrap().clone();
        let is_refused = |change: &Change| match change {
            Change::Put(record) => Some(&record.id) == refused.as_ref(),
            _ => false,
        };
        match changes.iter().any(is_refused) {
            true => Err(StoreError::Other("the row is locked".into())),
            false => self.0.append(changes),
        }
    }

    fn changes_since(&self, since: u64) -> Result<Changes, StoreError> {
        self.0.changes_since(since)
    }

    fn touch(&self, uses: &[(Name, Duration)]) -> Result<(), StoreError> {
        self.0.touch(uses)
    }
}

#[test]
fn a_key_that_the_store_refuses_keeps_nothing_else_from_being_written() {
    let store = Picky::default();
    let (old, fresh) = (Pepper::generate().unwrap(), Pepper::generate().unwrap());
    let builder = || Authenticator::builder().store(store.clone());
    let before = builder().pepper(old.clone()).build().unwrap();
    let [refused, used, resting] = [(); 3].map(|()| before.issue(new()).unwrap());
    // So many that some come after the one that is refused, in whatever order.
    let gone = [(); 20].map(|()| before.issue(new()).unwrap());
    let auth = (builder().pepper(fresh.clone()).previous_pepper(old))
        .build()
        .unwrap();
    auth.verify(used.key.expose()).unwrap();
    // All fail to be written at first, and one of them again.
    let refuse = |issued: &Issued| *store.1.lock().unwrap() = Some(issued.record.id.clone());
    refuse(&resting);
    auth.suspend(resting.key.id()).unwrap_err();
    for issued in gone.iter().chain([&refused]) {
        refuse(issued);
        auth.revoke(issued.key.id()).unwrap_err();
    }
    let answer = auth.flush();
    assert!(matches!(
        answer,
        Err(AuthError::Store(StoreError::Other(_)))
    ));
    assert!(stored_use(&store, &used.key).is_some());
    let stored = store.load().unwrap().records;
    let stored = |key: &UserKey| stored.iter().find(|it| it.id.as_str() == key.id()).unwrap();
    assert_eq!(stored(&used.key).pepper, fresh.id());
    assert!(matches!(
        stored(&resting.key).state,
        KeyState::Suspended { .. }
    ));
    for issued in &gone {
        let state = stored(&issued.key).state;
        assert!(matches!(state, KeyState::Revoked { .. }));
    }
    *store.1.lock().unwrap() = None;
    assert_eq!(auth.flush().unwrap().stopped, 1);
}

#[test]
fn a_flush_writes_what_the_store_had_failed_to_keep() {
    let store = Gated::default();
    let auth = auth_on(store.clone());
    let [revoked, suspended] = [(); 2].map(|()| auth.issue(new()).unwrap().record.id);
    store.fail(true);
    auth.revoke(revoked.as_str()).unwrap_err();
    auth.suspend(suspended.as_str()).unwrap_err();
    auth.flush().unwrap_err();
    store.fail(false);
    assert_eq!(auth.flush().unwrap().stopped, 2);
    assert_eq!(auth.flush().unwrap().stopped, 0);
    let now = Clock::system().unix_time();
    let mut stored: Vec<_> = (store.load().unwrap().records.iter())
        .map(|record| (record.id.clone(), record.status(now), record.revision))
        .collect();
    stored.sort_by(|a, b| a.0.cmp(&b.0));
    let mut expected = vec![
        (revoked, KeyStatus::Revoked, 2),
        (suspended, KeyStatus::Suspended, 2),
    ];
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(stored, expected);
}
