//! The core, without HTTP: what is accepted, what is not, and from when on.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{
    House, START, house, house_with, master_key, name, user_key, with_another_secret, with_checksum,
};
use proptest::prelude::*;
use spark_auth::{
    AuditEvent, AuthError, Authenticator, BuildError, Change, KeyRecord, KeyState, KeyStatus,
    KeyStore, MAX_OVERLAP, MasterVerifier, MemoryStore, NewKey, Pepper, Rejected, StoreError,
};
use spark_core::{Name, Principal};

const SECOND: Duration = Duration::from_secs(1);

fn restart(house: &House) -> Authenticator {
    Authenticator::builder()
        .clock(house.clock.clock())
        .pepper(house.pepper.clone())
        .store(house.store.clone())
        .build()
        .unwrap()
}

#[test]
fn an_issued_key_names_its_user() {
    let house = house();
    let new = NewKey::new(name("acme"))
        .label("laptop")
        .tier(name("pro"))
        .scopes([name("metrics:read")]);
    let issued = house.auth.issue(new).unwrap();
    for auth in [house.auth.clone(), restart(&house)] {
        let Ok(Principal::User(user)) = auth.verify(issued.key.expose()) else {
            panic!("the key is good");
        };
        assert_eq!(user.key_id, issued.record.id);
        assert_eq!(user.tenant, name("acme"));
        assert_eq!(user.tier, Some(name("pro")));
        assert!(user.scopes.contains("metrics:read"));
    }
}

#[test]
fn each_bad_credential_has_its_reason() {
    let house = house();
    let good = house.issue().key;
    let text = good.expose();
    let relabelled = with_checksum(|to| {
        to.push_str(&text.replace("_live_", "_test_")[..text.len() - 6]);
    });
    let promoted = with_checksum(|to| {
        to.push_str(&text.replace("_sk_", "_mk_")[..text.len() - 6]);
    });
    let demoted = with_checksum(|to| {
        let master = house.master.expose();
        to.push_str(&master.replace("_mk_", "_sk_")[..master.len() - 6]);
    });
    for (credential, reason) in [
        ("", Rejected::Malformed),
        ("x", Rejected::Malformed),
        (&"x".repeat(257), Rejected::Malformed),
        (&"x".repeat(64 * 1024), Rejected::Malformed),
        (&text[..text.len() - 1], Rejected::Malformed),
        (&format!("{text}\0"), Rejected::Malformed),
        (user_key().expose(), Rejected::UnknownKey),
        (master_key().expose(), Rejected::WrongMaster),
        (with_another_secret(&good).expose(), Rejected::WrongSecret),
        (&relabelled, Rejected::WrongSecret),
        (&promoted, Rejected::WrongMaster),
        (&demoted, Rejected::UnknownKey),
    ] {
        assert_eq!(house.auth.verify(credential), Err(reason), "{reason}");
    }
    assert!(house.auth.verify(text).is_ok());
}

#[test]
fn a_right_secret_of_a_revoked_key_is_revoked_and_a_wrong_one_is_wrong() {
    let house = house();
    let issued = house.issue();
    house.auth.revoke(issued.record.id.as_str()).unwrap();
    let right = house.auth.verify(issued.key.expose());
    assert_eq!(right, Err(Rejected::Revoked));
    let wrong = house.auth.verify(with_another_secret(&issued.key).expose());
    assert_eq!(wrong, Err(Rejected::WrongSecret));
    assert_eq!(
        restart(&house).verify(issued.key.expose()),
        Err(Rejected::Revoked)
    );
}

#[test]
fn a_key_works_from_its_start_until_just_before_its_end() {
    let house = house();
    let new = NewKey::new(name("acme"))
        .not_before(START + SECOND)
        .expires_at(START + 3 * SECOND);
    let key = house.auth.issue(new).unwrap().key;
    let at = |time: Duration| {
        house.clock.set_unix_time(time);
        house.auth.verify(key.expose()).map(drop)
    };
    let tick = Duration::from_nanos(1);
    assert_eq!(at(START + SECOND - tick), Err(Rejected::NotYetValid));
    assert_eq!(at(START + SECOND), Ok(()));
    assert_eq!(at(START + 3 * SECOND - tick), Ok(()));
    assert_eq!(at(START + 3 * SECOND), Err(Rejected::Expired));
    // A clock that is set back is believed: the wall clock is all that a date can be held against.
    assert_eq!(at(START + 2 * SECOND), Ok(()));
}

#[test]
fn a_rotated_key_works_for_the_overlap_and_not_longer() {
    let house = house();
    let new = NewKey::new(name("acme"))
        .label("ci")
        .tier(name("pro"))
        .scopes([name("a:b")]);
    let old = house.auth.issue(new).unwrap();
    let fresh = house
        .auth
        .rotate(old.record.id.as_str(), 10 * SECOND)
        .unwrap();
    assert_eq!(fresh.record.tenant, old.record.tenant);
    assert_eq!(fresh.record.tier, old.record.tier);
    assert_eq!(fresh.record.scopes, old.record.scopes);
    assert_eq!(fresh.record.label, old.record.label);
    let info = house.auth.get(old.record.id.as_str()).unwrap();
    assert_eq!(info.replaced_by, Some(fresh.record.id.clone()));

    for auth in [house.auth.clone(), restart(&house)] {
        house
            .clock
            .set_unix_time(START + 10 * SECOND - Duration::from_millis(1));
        assert!(auth.verify(old.key.expose()).is_ok());
        house.clock.set_unix_time(START + 10 * SECOND);
        assert_eq!(auth.verify(old.key.expose()), Err(Rejected::Expired));
        assert!(auth.verify(fresh.key.expose()).is_ok());
    }
}

#[test]
fn a_rotation_never_makes_a_right_last_longer() {
    let house = house();
    let new = NewKey::new(name("acme")).expires_at(START + 5 * SECOND);
    let old = house.auth.issue(new).unwrap();
    let fresh = house
        .auth
        .rotate(old.record.id.as_str(), MAX_OVERLAP)
        .unwrap();
    assert_eq!(fresh.record.expires_at, old.record.expires_at);
    house.clock.set_unix_time(START + 5 * SECOND);
    for key in [old.key, fresh.key] {
        assert_eq!(house.auth.verify(key.expose()), Err(Rejected::Expired));
    }
}

#[test]
fn what_cannot_be_rotated_says_why() {
    let house = house();
    let first = house.issue().record.id;
    let second = house.auth.rotate(first.as_str(), SECOND).unwrap().record.id;
    let again = house.auth.rotate(first.as_str(), SECOND);
    assert!(matches!(again, Err(AuthError::AlreadyRotated { successor }) if successor == second));
    house.auth.revoke(second.as_str()).unwrap();
    let revoked = house.auth.rotate(second.as_str(), SECOND);
    let status = KeyStatus::Revoked;
    assert!(matches!(revoked, Err(AuthError::NotActive { status: found }) if found == status));
    assert!(matches!(
        house.auth.rotate("nobody", SECOND),
        Err(AuthError::NotFound)
    ));
    let endless = house.auth.rotate(first.as_str(), Duration::MAX);
    assert_eq!(endless.unwrap_err().field(), Some("overlap"));
}

#[test]
fn revoking_is_final_and_may_be_repeated() {
    let house = house();
    let issued = house.issue();
    let id = issued.record.id.as_str();
    let first = house.auth.revoke(id).unwrap();
    house.clock.set_unix_time(START + SECOND);
    assert_eq!(house.auth.revoke(id).unwrap(), first);
    assert!(matches!(
        house.auth.revoke("nobody"),
        Err(AuthError::NotFound)
    ));
    let revoked = AuditEvent::Revoked {
        key_id: issued.record.id.clone(),
        saved: true,
    };
    assert_eq!(
        house
            .events
            .take()
            .iter()
            .filter(|it| **it == revoked)
            .count(),
        1
    );
}

#[test]
fn fields_that_cannot_be_used_are_named() {
    let house = house();
    let new = || NewKey::new(name("acme"));
    let scopes = (0..33).map(|number| name(&format!("s{number}")));
    for (new, field) in [
        (new().label(""), "label"),
        (new().label("a\nb"), "label"),
        (new().label("a".repeat(129)), "label"),
        (new().scopes(scopes), "scopes"),
        (new().expires_at(START), "expires_at"),
        (new().expires_at(Duration::ZERO), "expires_at"),
        (
            new().expires_at(START + SECOND).not_before(START + SECOND),
            "not_before",
        ),
    ] {
        assert_eq!(house.auth.issue(new).unwrap_err().field(), Some(field));
    }
    assert!(house.auth.is_empty());
    assert!(house.auth.issue(new().expires_at(Duration::MAX)).is_ok());
}

#[test]
fn both_master_slots_work_and_the_previous_one_ends() {
    let house = house();
    let (current, previous) = (master_key(), master_key());
    let auth = Authenticator::builder()
        .clock(house.clock.clock())
        .pepper(house.pepper.clone())
        .store(MemoryStore::new())
        .master(MasterVerifier::of(&house.pepper, &current))
        .previous_master(MasterVerifier::of(&house.pepper, &previous).expires_at(START + SECOND))
        .audit(house.events.clone())
        .build()
        .unwrap();
    assert_eq!(auth.verify(current.expose()), Ok(Principal::Master));
    assert_eq!(auth.verify(previous.expose()), Ok(Principal::Master));
    house.clock.set_unix_time(START + SECOND);
    assert_eq!(auth.verify(previous.expose()), Err(Rejected::WrongMaster));
    let used = |previous| AuditEvent::MasterUsed {
        previous,
        client_ip: None,
    };
    assert_eq!(house.events.take()[..2], [used(false), used(true)]);
}

#[test]
fn an_operators_own_secret_works_and_makes_nothing_else_work() {
    let pepper = Pepper::generate().unwrap();
    let secret = "8f2K-zR41-vQ9x-Lm3T-w7Yb-Hd6S-cJ0p";
    let auth = Authenticator::builder()
        .master(MasterVerifier::from_secret(&pepper, secret).unwrap())
        .pepper(pepper)
        .store(MemoryStore::new())
        .build()
        .unwrap();
    assert_eq!(auth.verify(secret), Ok(Principal::Master));
    assert_eq!(auth.verify(&secret[1..]), Err(Rejected::WrongMaster));
    assert_eq!(
        auth.verify(&format!("{secret}0")),
        Err(Rejected::WrongMaster)
    );
    assert_eq!(
        auth.verify(master_key().expose()),
        Err(Rejected::WrongMaster)
    );
}

#[test]
fn without_a_master_key_nothing_is_master() {
    let house = house();
    let auth = restart(&house);
    assert_eq!(
        auth.verify(house.master.expose()),
        Err(Rejected::WrongMaster)
    );
}

#[test]
fn keys_of_the_previous_pepper_work_and_a_wrong_pepper_stops_the_start() {
    let house = house();
    let old = house.issue().key;
    let fresh = Pepper::generate().unwrap();
    let builder = || {
        Authenticator::builder()
            .clock(house.clock.clock())
            .pepper(fresh.clone())
            .store(house.store.clone())
    };
    assert!(matches!(
        builder().build(),
        Err(BuildError::WrongPepper { keys: 1, .. })
    ));
    let master = MasterVerifier::of(&house.pepper, &house.master);
    let error = builder().master(master.clone()).build();
    assert!(matches!(error, Err(BuildError::MasterPepper { .. })));

    let auth = builder()
        .previous_pepper(house.pepper.clone())
        .master(master)
        .build()
        .unwrap();
    assert!(auth.verify(old.expose()).is_ok());
    assert!(auth.verify(house.master.expose()).is_ok());
    let new = auth.issue(NewKey::new(name("acme"))).unwrap().key;

    // One key of the new pepper is there now, so the old pepper may go; its keys are refused.
    let auth = builder().build().unwrap();
    assert!(auth.verify(new.expose()).is_ok());
    assert_eq!(auth.verify(old.expose()), Err(Rejected::UnknownPepper));
}

#[test]
fn a_full_house_forgets_what_has_ended_and_nothing_that_lives() {
    let house = house_with(3);
    let keys: Vec<_> = (0..3).map(|_| house.issue()).collect();
    let new = || NewKey::new(name("acme"));
    assert!(matches!(
        house.auth.issue(new()),
        Err(AuthError::Full { max: 3 })
    ));
    assert!(matches!(
        house.auth.rotate(keys[0].record.id.as_str(), SECOND),
        Err(AuthError::Full { max: 3 })
    ));
    house.auth.revoke(keys[1].record.id.as_str()).unwrap();
    let fourth = house.issue();
    for auth in [house.auth.clone(), restart(&house)] {
        assert_eq!(auth.len(), 3);
        assert_eq!(auth.verify(keys[1].key.expose()), Err(Rejected::UnknownKey));
        for alive in [&keys[0], &keys[2], &fourth] {
            assert!(auth.verify(alive.key.expose()).is_ok());
        }
    }
    let small = Authenticator::builder()
        .pepper(house.pepper)
        .store(house.store)
        .max_keys(2)
        .build();
    assert!(matches!(
        small,
        Err(BuildError::TooManyKeys { found: 3, max: 2 })
    ));
}

#[test]
fn the_list_is_in_order_and_has_no_mac() {
    let house = house();
    let mut ids = Vec::new();
    for second in 0..5 {
        house.clock.set_unix_time(START + second * SECOND);
        ids.push(house.issue().record.id);
    }
    let list = house.auth.list();
    assert_eq!(
        list.iter().map(|info| info.id.clone()).collect::<Vec<_>>(),
        ids
    );
    let json = serde_json::to_value(&list[0]).unwrap();
    let mut fields: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
    fields.sort();
    assert_eq!(
        fields,
        [
            "created_at",
            "environment",
            "expires_at",
            "id",
            "label",
            "scopes",
            "status",
            "tenant",
            "tier"
        ]
    );
    assert_eq!(json["created_at"], START.as_secs());
}

#[derive(Debug, Default)]
struct Broken {
    inner: MemoryStore,
    fails: AtomicBool,
}

impl KeyStore for Broken {
    fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.inner.load()
    }

    fn append(&self, changes: &[Change]) -> Result<(), StoreError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Other("the disk is full".into()));
        }
        self.inner.append(changes)
    }
}

#[test]
fn a_store_that_fails_changes_nothing_but_stops_a_revoked_key_at_once() {
    let store = Arc::new(Broken::default());
    let pepper = Pepper::generate().unwrap();
    let auth = Authenticator::builder()
        .pepper(pepper)
        .store(Arc::clone(&store))
        .build()
        .unwrap();
    let issued = auth.issue(NewKey::new(name("acme"))).unwrap();
    let id = issued.record.id.as_str();

    store.fails.store(true, Ordering::SeqCst);
    assert!(matches!(
        auth.issue(NewKey::new(name("acme"))),
        Err(AuthError::Store(_))
    ));
    assert!(matches!(auth.rotate(id, SECOND), Err(AuthError::Store(_))));
    assert_eq!(auth.len(), 1);
    assert!(auth.verify(issued.key.expose()).is_ok());
    assert!(matches!(auth.revoke(id), Err(AuthError::Store(_))));
    assert_eq!(auth.verify(issued.key.expose()), Err(Rejected::Revoked));
    assert!(matches!(auth.revoke(id), Err(AuthError::Store(_))));
    assert!(matches!(store.load().unwrap()[0].state, KeyState::Active));

    store.fails.store(false, Ordering::SeqCst);
    auth.revoke(id).unwrap();
    assert!(matches!(
        store.load().unwrap()[0].state,
        KeyState::Revoked { .. }
    ));
}

#[test]
fn no_request_gets_in_after_revoke_has_returned() {
    let house = house();
    for _ in 0..200 {
        let issued = house.issue();
        let revoked = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let was_revoked = revoked.load(Ordering::SeqCst);
                        let accepted = house.auth.verify(issued.key.expose()).is_ok();
                        assert!(
                            !(was_revoked && accepted),
                            "let in after revoke had returned"
                        );
                        if was_revoked {
                            break;
                        }
                    }
                });
            }
            house.auth.revoke(issued.record.id.as_str()).unwrap();
            revoked.store(true, Ordering::SeqCst);
        });
        if house.auth.len() > 90 {
            break;
        }
    }
}

#[test]
fn keys_issued_at_the_same_time_all_arrive() {
    let house = house_with(1_000);
    let keys = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let issued = house.issue();
                    keys.lock().unwrap().push(issued);
                }
            });
        }
    });
    let keys = keys.into_inner().unwrap();
    let auth = restart(&house);
    assert_eq!(auth.len(), 200);
    let mut revisions: Vec<_> = keys.iter().map(|issued| issued.record.revision).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=200).collect::<Vec<_>>());
    assert!(
        keys.iter()
            .all(|issued| auth.verify(issued.key.expose()).is_ok())
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn nothing_that_was_not_issued_gets_in(text in "\\PC{0,300}") {
        thread_local!(static HOUSE: House = {
            let house = house();
            house.issue();
            house
        });
        let refused = HOUSE.with(|house| house.auth.verify(&text).is_err());
        prop_assert!(refused);
    }
}

#[test]
fn ids_are_looked_up_by_any_text() {
    let house = house();
    let id: Name = house.issue().record.id;
    assert!(house.auth.get(id.as_str()).is_some());
    for text in ["", "é", "abcdefghijkl", &"x".repeat(10_000)] {
        assert!(house.auth.get(text).is_none());
    }
}
