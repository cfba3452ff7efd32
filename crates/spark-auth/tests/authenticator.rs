//! The core, without HTTP: what is accepted, what is not, and from when on.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use common::{
    Gated, House, START, auth_on, house, house_with, master_key, name, user_key,
    with_another_secret, with_checksum,
};
use proptest::prelude::*;
use spark_auth::{
    AuditEvent, AuthError, Authenticator, BuildError, Change, KeyState, KeyStatus, KeyStore,
    MAX_OVERLAP, MasterVerifier, MemoryStore, NewKey, Pepper, Rejected,
};
use spark_core::{Name, Principal};

const SECOND: Duration = Duration::from_secs(1);

fn restart(house: &House) -> Authenticator {
    house.builder().build().unwrap()
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
    ] {
        assert_eq!(house.auth.verify(credential), Err(reason), "{reason}");
    }
    assert!(house.auth.verify(text).is_ok());
}

/// The types of the two kinds are apart too: see the examples of `ApiKey` that must not compile.
#[test]
fn a4_neither_kind_of_key_passes_for_the_other() {
    let house = house();
    let user = house.issue().key;
    let relabelled = |text: &str, from: &str, to: &str| {
        with_checksum(|new| new.push_str(&text.replace(from, to)[..text.len() - 6]))
    };
    let promoted = relabelled(user.expose(), "_sk_", "_mk_");
    assert_eq!(house.auth.verify(&promoted), Err(Rejected::WrongMaster));
    let demoted = relabelled(house.master.expose(), "_mk_", "_sk_");
    assert_eq!(house.auth.verify(&demoted), Err(Rejected::UnknownKey));

    let verifier = MasterVerifier::from_secret(&house.pepper, user_key().expose());
    assert!(verifier.is_err(), "a user key is no master secret");
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
fn a6_a_key_works_from_its_start_until_just_before_its_end() {
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
    // A clock that is set back is believed, the wall clock being all that a date can be held
    // against, but not to before the latest change of a key.
    assert_eq!(at(START + 2 * SECOND), Ok(()));
    assert_eq!(at(Duration::ZERO), Err(Rejected::NotYetValid));
}

#[test]
fn a6_a_date_that_is_ahead_elsewhere_lets_no_key_work_before_its_start() {
    let house = house();
    let start = START + Duration::from_secs(86_400);
    let early = NewKey::new(name("acme")).not_before(start);
    let early = house.auth.issue(early).unwrap();
    let mut ahead = house.issue().record;
    ahead.id = name("AAAAAAAAAAAA");
    ahead.created_at = start + Duration::from_secs(1);
    house.store.append(&[Change::Put(Box::new(ahead))]).unwrap();
    house.auth.refresh().unwrap();
    let answer = || house.auth.verify(early.key.expose()).map(drop);
    assert_eq!(answer(), Err(Rejected::NotYetValid));
    let status = house.auth.get(early.key.id()).unwrap().status;
    assert_eq!(status, KeyStatus::NotYetValid);
    house.clock.advance(Duration::from_secs(86_400));
    assert_eq!(answer(), Ok(()));
}

#[test]
fn a5_a_rotated_key_works_for_the_overlap_and_not_longer() {
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
    let scope = |text| new().scopes([name("fine"), name(text)]);
    let networks = |count: u8| (0..count).map(|it| format!("10.{it}.0.0/16").parse().unwrap());
    let sliver = Duration::from_micros(1);
    for (new, field) in [
        (new().label(""), "label"),
        (new().label("a\nb"), "label"),
        (new().label("a".repeat(129)), "label"),
        (new().scopes(scopes), "scopes"),
        (scope("chat*"), "scopes"),
        (scope("a::b"), "scopes"),
        (scope("*:read"), "scopes"),
        (scope("a:"), "scopes"),
        (new().owner(""), "owner"),
        (new().owner("a\u{7f}"), "owner"),
        (new().owner("a".repeat(129)), "owner"),
        (new().ip_allow(networks(33)), "ip_allow"),
        (new().expires_at(START + sliver), "expires_at"),
        (
            new()
                .not_before(START + SECOND)
                .expires_at(START + SECOND + sliver),
            "not_before",
        ),
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
    for fine in [
        new().expires_at(Duration::MAX),
        new().ip_allow(networks(32)),
        scope("chat:*"),
        scope("*"),
    ] {
        assert!(house.auth.issue(fine).is_ok());
    }
}

#[test]
fn a13_both_master_slots_work_and_the_previous_one_ends() {
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
fn a12_keys_of_the_previous_pepper_work_and_a_wrong_pepper_stops_the_start() {
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

    // Without the old pepper its keys are lost, which has to be said.
    assert!(matches!(
        builder().build(),
        Err(BuildError::WrongPepper { keys: 1, .. })
    ));
    let auth = builder().accept_lost_keys(true).build().unwrap();
    assert!(auth.verify(new.expose()).is_ok());
    assert_eq!(auth.verify(old.expose()), Err(Rejected::UnknownPepper));
    // A key that has ended is no loss.
    auth.revoke(old.id()).unwrap();
    assert!(builder().build().is_ok());
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
    let small = house.builder().max_keys(2).build();
    assert!(matches!(
        small,
        Err(BuildError::TooManyKeys { found: 3, max: 2 })
    ));
    // Keys that have ended do not stop the start, and go when a new one comes.
    house.auth.revoke(keys[0].record.id.as_str()).unwrap();
    house.auth.revoke(keys[2].record.id.as_str()).unwrap();
    let small = house.builder().max_keys(2).build().unwrap();
    assert_eq!(small.len(), 3);
    small.issue(new()).unwrap();
    assert_eq!(small.len(), 2);
}

#[test]
fn a_bound_that_was_lowered_holds_however_many_have_ended() {
    let house = house_with(5_000);
    for _ in 0..2_000 {
        house.auth.revoke(house.issue().key.id()).unwrap();
    }
    let alive = [(); 9].map(|()| house.issue());
    let build = || house.builder().max_keys(10).build();
    let small = build().unwrap();
    let issue = || small.issue(NewKey::new(name("acme")));
    // Each call forgets a thousand.
    issue().unwrap();
    assert_eq!(small.len(), 1_010);
    let answer = issue();
    assert!(
        matches!(answer, Err(AuthError::Full { max: 10 })),
        "{answer:?}"
    );
    small.revoke(alive[0].key.id()).unwrap();
    issue().unwrap();
    assert!(issue().is_err());
    build().unwrap();
}

#[test]
fn a_leaked_key_is_replaced_even_in_a_full_house() {
    let house = house_with(2);
    let keys = [house.issue(), house.issue()];
    let leaked = &keys[0];
    let fresh = (house.auth)
        .rotate(leaked.record.id.as_str(), Duration::ZERO)
        .unwrap();
    for auth in [house.auth.clone(), restart(&house)] {
        assert_eq!(auth.len(), 2);
        // There is no room to remember it.
        assert_eq!(auth.verify(leaked.key.expose()), Err(Rejected::UnknownKey));
        assert!(auth.verify(fresh.key.expose()).is_ok());
        assert!(auth.verify(keys[1].key.expose()).is_ok());
    }
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
            "pepper",
            "scopes",
            "status",
            "tenant",
            "tier"
        ]
    );
    assert_eq!(json["created_at"], START.as_secs());
}

#[test]
fn a14_a_store_that_fails_changes_nothing_but_stops_a_key_at_once() {
    let store = Gated::default();
    let auth = auth_on(store.clone());
    let issued = auth.issue(NewKey::new(name("acme"))).unwrap();
    let id = issued.record.id.as_str();
    let stored = || store.load().unwrap().records.remove(0).state;

    store.fail(true);
    assert!(matches!(
        auth.issue(NewKey::new(name("acme"))),
        Err(AuthError::Store(_))
    ));
    assert!(matches!(auth.rotate(id, SECOND), Err(AuthError::Store(_))));
    assert_eq!(auth.len(), 1);
    assert!(auth.verify(issued.key.expose()).is_ok());
    for _ in 0..2 {
        assert!(matches!(auth.suspend(id), Err(AuthError::Store(_))));
        assert_eq!(auth.verify(issued.key.expose()), Err(Rejected::Suspended));
    }
    // Nor does what comes back from the store undo that.
    assert_eq!(auth.refresh().unwrap(), 0);
    assert!(matches!(auth.resume(id), Err(AuthError::Store(_))));
    assert_eq!(auth.verify(issued.key.expose()), Err(Rejected::Suspended));
    for _ in 0..2 {
        assert!(matches!(auth.revoke(id), Err(AuthError::Store(_))));
        assert_eq!(auth.verify(issued.key.expose()), Err(Rejected::Revoked));
    }
    assert_eq!(stored(), KeyState::Active);

    store.fail(false);
    auth.revoke(id).unwrap();
    assert!(matches!(stored(), KeyState::Revoked { .. }));
}

#[test]
fn a_revocation_that_the_store_did_not_keep_is_not_forgotten() {
    let store = Gated::default();
    let auth = Authenticator::builder()
        .pepper(Pepper::generate().unwrap())
        .store(store.clone())
        .max_keys(1)
        .build()
        .unwrap();
    let id = auth.issue(NewKey::new(name("acme"))).unwrap().record.id;
    store.fail(true);
    auth.revoke(id.as_str()).unwrap_err();
    store.fail(false);
    // The store still takes the key for alive, so it is no room yet.
    let next = || auth.issue(NewKey::new(name("acme")));
    assert!(matches!(next(), Err(AuthError::Full { max: 1 })));
    auth.revoke(id.as_str()).unwrap();
    assert!(next().is_ok());
}

/// Hammers one key after the other, and counts who got in after `revoke` had returned.
#[test]
fn a5_no_request_gets_in_after_revoke_has_returned() {
    const ROUNDS: usize = 400;
    const CALLERS: usize = 3;
    let house = house_with(2 * ROUNDS);
    let (before, after) = (AtomicUsize::new(0), AtomicUsize::new(0));
    for _ in 0..ROUNDS {
        let issued = house.issue();
        let returned = AtomicBool::new(false);
        let ready = Barrier::new(CALLERS + 1);
        let so_far = before.load(Ordering::Relaxed);
        std::thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    ready.wait();
                    loop {
                        let has_returned = returned.load(Ordering::SeqCst);
                        let accepted = house.auth.verify(issued.key.expose()).is_ok();
                        let count = if has_returned { &after } else { &before };
                        count.fetch_add(usize::from(accepted), Ordering::Relaxed);
                        if has_returned {
                            break;
                        }
                    }
                });
            }
            ready.wait();
            while before.load(Ordering::Relaxed) == so_far {
                std::thread::yield_now();
            }
            house.auth.revoke(issued.record.id.as_str()).unwrap();
            returned.store(true, Ordering::SeqCst);
        });
    }
    assert_eq!(house.auth.len(), ROUNDS);
    assert_eq!(after.into_inner(), 0);
    // Or else nobody was there to be refused.
    assert!(before.into_inner() >= ROUNDS);
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
    revisions.dedup();
    assert_eq!(revisions, [1]);
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
