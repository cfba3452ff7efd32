use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn digest(json: &str) -> [u8; 32] {
    Canonical::of(json.as_bytes()).digest()
}

fn kind(json: &str) -> &'static str {
    Canonical::of(json.as_bytes()).kind()
}

#[test]
fn the_spelling_makes_no_difference() {
    for (a, b) in [
        ("{}", " {\n\t} "),
        (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#),
        ("1", "1.0"),
        ("1", "1e0"),
        ("100", "1E+2"),
        ("0", "-0"),
        ("0.5", "5e-1"),
        ("9007199254740992", "9007199254740992"),
        (r#""a""#, r#""\u0061""#),
        (r#""/""#, r#""\/""#),
        (r#""😀""#, r#""\ud83d\ude00""#),
        (r#"{"\u0061":[]}"#, r#"{"a":[ ]}"#),
        (
            r#"{"x":{"b":[{"d":1,"c":2}],"a":0}}"#,
            r#"{"x":{"a":0,"b":[{"c":2,"d":1}]}}"#,
        ),
    ] {
        assert_eq!(digest(a), digest(b), "{a} {b}");
        assert_eq!(kind(a), "json", "{a}");
    }
}

#[test]
fn a_different_value_differs() {
    let all = [
        "z",
        "f",
        "t",
        "jsonz",
        "null",
        "true",
        "false",
        "0",
        "1",
        "-1",
        "0.1",
        "9007199254740991",
        "9007199254740992",
        "9007199254740993",
        "9007199254740994",
        "9007199254740992.0",
        "18446744073709551615",
        "-9007199254740992",
        "-9007199254740993",
        "18446744073709551616",
        "1e300",
        "1e400",
        r#""""#,
        r#""0""#,
        r#""null""#,
        r#""é""#,
        "\"e\u{301}\"",
        "[]",
        "[[]]",
        "[[],[]]",
        "[[[]]]",
        "[0]",
        "[0,0]",
        "[1,2]",
        "[2,1]",
        r#"["a","b"]"#,
        r#"["ab"]"#,
        r#"["a:b"]"#,
        "{}",
        r#"{"a":{}}"#,
        r#"{"a":[]}"#,
        r#"{"a":"b"}"#,
        r#"{"a":"b","c":"d"}"#,
        r#"{"a":{"b":{"c":"d"}}}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"a":2,"a":1}"#,
        r#"{"a":2}"#,
        r#"{"a":1}"#,
        r#""\ud800""#,
        r#""\udbff""#,
        "",
        "{",
    ];
    for (i, a) in all.iter().enumerate() {
        for (j, b) in all.iter().enumerate() {
            assert_eq!(digest(a) == digest(b), i == j, "{a} {b}");
        }
    }
}

#[test]
fn what_is_open_to_doubt_is_taken_byte_for_byte() {
    for doubtful in [
        r#"{"a":1,"a":1}"#,
        r#"{"a":1,"\u0061":1}"#,
        r#"{"x":[{"b":0,"b":0}]}"#,
        "9007199254740993",
        "-9007199254740993",
        "9007199254740992.0",
        "123456789012345678901234567890",
        "1e400",
        r#""\ud800""#,
        r#"{"\udc00":1}"#,
        "{",
        "",
        "nul",
        "1 2",
        "\u{feff}{}",
    ] {
        assert_eq!(kind(doubtful), "byte", "{doubtful}");
        assert_ne!(
            digest(doubtful),
            digest(&format!(" {doubtful}")),
            "{doubtful}"
        );
    }
    assert_eq!(Canonical::of(b"\"\xff\"").kind(), "byte");
}

#[test]
fn depth_is_capped() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(kind(&nested(127)), "json");
    assert_eq!(kind(&nested(128)), "byte");
    assert_eq!(kind(&nested(1_000_000)), "byte");
}

#[test]
fn a_member_is_only_told_where_it_is_certain() {
    let of = |json: &'static str| Canonical::of(json.as_bytes()).member("seed");
    assert_eq!(of(r#"{"seed":7}"#), Some(Scalar::Number(7.0)));
    assert_eq!(of(r#"{"seed":null}"#), Some(Scalar::Null));
    assert_eq!(of(r#"{"seed":"7"}"#), Some(Scalar::Other));
    assert!(matches!(
        of(r#"{"seed":18446744073709551615}"#),
        Some(Scalar::Number(_))
    ));
    assert_eq!(of(r#"{"x":{"seed":7}}"#), None);
    assert_eq!(of(r#"{"seed":7,"x":{"y":1,"y":2}}"#), None);
    assert_eq!(of("[]"), None);
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..3).prop_map(Value::from),
        (0u8..4).prop_map(|n| json!(f64::from(n) / 4.0 + 0.125)),
        "[a-b\u{e9}\u{ffff}\u{10000}:\"]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-b\u{e9}\u{ffff}\u{10000}]{0,2}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Writes `value` with its members turned around and white space wherever it may stand.
fn respell(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(respell).collect();
            format!("[ {} ]", items.join(" ,\n"))
        }
        Value::Object(members) => {
            let members: Vec<_> = members
                .iter()
                .rev()
                .map(|(name, value)| {
                    format!("\t{} : {}", Value::from(name.as_str()), respell(value))
                })
                .collect();
            format!("{{{}\r\n}}", members.join(","))
        }
        Value::Number(number) if number.is_i64() => format!("{number}.0e0"),
        other => other.to_string(),
    }
}

proptest! {
    #[test]
    fn order_and_space_make_no_difference(value in value()) {
        let (plain, other) = (value.to_string(), respell(&value));
        prop_assert_eq!(kind(&plain), "json");
        prop_assert_eq!(digest(&plain), digest(&other), "{} {}", plain, other);
    }

    #[test]
    fn equal_digests_mean_equal_values(a in value(), b in value()) {
        prop_assert_eq!(digest(&a.to_string()) == digest(&b.to_string()), a == b);
    }

    #[test]
    fn any_bytes_have_a_digest(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let document = Canonical::of(&bytes);
        document.digest();
        document.member("a");
    }

    #[test]
    fn almost_json_has_a_digest(text in r#"[\[\]{}:,"\\a0-9.e+u-]{0,24}"#) {
        digest(&text);
    }
}
