//! `KeyRecord::decode`: whatever is read from a store can be written back and means the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use spark_auth::{KeyRecord, Mac, Pepper, PepperId};

fuzz_target!(|text: &str| {
    if let Ok(record) = KeyRecord::decode(text) {
        let again = KeyRecord::decode(&record.encode()).expect("what was written is readable");
        assert_eq!(again, record);
    }
    if let Some(mac) = Mac::parse_hex(text) {
        assert_eq!(
            Mac::parse_hex(&mac.to_hex()).map(|mac| mac.to_hex()),
            Some(mac.to_hex())
        );
    }
    let _ = PepperId::parse(text);
    if let Ok(pepper) = Pepper::parse_hex(text) {
        assert!(
            !format!("{pepper:?}").contains(pepper.expose_hex().as_str()),
            "the pepper shows"
        );
    }
});
