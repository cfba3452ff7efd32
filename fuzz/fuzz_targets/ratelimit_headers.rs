//! What the limiter writes into header fields reads back as what it means, by any reader: the
//! fields of the draft as structured fields, those of old habits as their clients read them.

#![no_main]

use std::collections::HashSet;
use std::time::Duration;

use arbitrary::Arbitrary;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use sfv::{BareItem, Item, List, ListEntry, Parser};
use spark_core::testing::TestClock;
use spark_core::{Instant, Name};
use spark_ratelimit::{Decision, Key, Limiter, Policy, Quota, Unit};

// The writers are no part of the crate's interface: here they are built once more, by themselves.
#[path = "../../crates/spark-ratelimit/src/headers.rs"]
#[allow(dead_code)]
mod headers;
#[path = "../../crates/spark-ratelimit/src/jitter.rs"]
mod jitter;
#[path = "../../crates/spark-ratelimit/src/legacy.rs"]
mod legacy;
#[path = "../../crates/spark-ratelimit/src/text.rs"]
mod text;

const SECOND: u128 = 1_000_000_000;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    start: u64,
    policies: Vec<Given<'a>>,
    ops: Vec<Op>,
    count: (&'a str, u64, UnitOf),
    figures: [u64; 4],
    unix_time: Duration,
    jitter: (Duration, Duration, u64),
}

#[derive(Debug, Arbitrary)]
struct Given<'a> {
    name: &'a str,
    rate: Rate,
    tier: Option<(&'a str, Rate)>,
    unit: UnitOf,
    shadow: bool,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
struct Rate {
    quota: u64,
    per: Per,
    burst: Option<u64>,
    /// Most numbers of 64 bits are too large for a quota.
    shift: u8,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Per {
    Nanos(u64),
    Millis(u32),
    Seconds(u32),
    Any(Duration),
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum UnitOf {
    Requests,
    ContentBytes,
    ConcurrentRequests,
    Tokens,
}

#[derive(Debug, Arbitrary)]
enum Op {
    Check { tier: bool, cost: u64 },
    Wait(u64),
}

/// A policy that was accepted, and what has to be told of it.
struct Accepted<'a> {
    name: &'a str,
    quota: Quota,
    tier: Option<(&'a str, Quota)>,
    unit: Unit,
    shadow: bool,
}

fuzz_target!(|input: Input<'_>| {
    limiter(&input);
    writers(&input);
});

/// The fields of a limiter.
fn limiter(input: &Input<'_>) {
    let clock = TestClock::new();
    clock.set(Instant::from_nanos(input.start >> 2));
    let mut builder = Limiter::builder().clock(clock.clock()).capacity(8);
    let mut accepted = Vec::new();
    let mut names = HashSet::new();
    for given in input.policies.iter().take(4) {
        let Some(quota) = given.rate.quota() else {
            continue;
        };
        let Ok(mut policy) = Policy::new(given.name, quota) else {
            continue;
        };
        if !names.insert(given.name) {
            continue;
        }
        policy = policy.unit(given.unit.into());
        let tier = given.tier.and_then(|(tier, rate)| {
            let quota = Name::new(tier).ok().and_then(|_| rate.quota())?;
            Some((tier, quota))
        });
        if let Some((tier, quota)) = tier {
            policy = policy.tier(tier, quota);
        }
        if given.shadow {
            policy = policy.shadow();
        }
        builder = builder.policy(policy);
        accepted.push(Accepted {
            name: given.name,
            quota,
            tier,
            unit: given.unit.into(),
            shadow: given.shadow,
        });
    }
    if accepted.is_empty() {
        return;
    }
    let limiter = builder.build().unwrap();
    let tier = accepted.iter().find_map(|policy| policy.tier);
    let tier = tier.map(|(name, _)| name);
    for op in input.ops.iter().take(64) {
        match op {
            Op::Wait(nanos) => clock.advance(Duration::from_nanos(*nanos >> 2)),
            Op::Check { tier: named, cost } => {
                let tier = tier.filter(|_| *named);
                let decision = limiter.check(&Key::shared(), tier, *cost);
                policy_field(&accepted, tier, &decision);
                limit_field(&accepted, &decision);
            }
        }
    }
}

fn policy_field(accepted: &[Accepted<'_>], tier: Option<&str>, decision: &Decision) {
    let told: Vec<&Accepted<'_>> = accepted.iter().filter(|policy| !policy.shadow).collect();
    let Some(field) = decision.rate_limit_policy_field() else {
        assert!(told.is_empty());
        return;
    };
    let items = list(&field);
    assert_eq!(items.len(), told.len(), "{field:?}");
    for (item, policy) in items.iter().zip(told) {
        let quota = match policy.tier {
            Some((name, quota)) if Some(name) == tier => quota,
            _ => policy.quota,
        };
        reads_as_rate(item, policy.name, &quota, policy.unit);
    }
}

fn limit_field(accepted: &[Accepted<'_>], decision: &Decision) {
    let Some(field) = decision.rate_limit_field() else {
        assert!(accepted.iter().all(|policy| policy.shadow) && decision.allowed());
        return;
    };
    let state = decision.tightest();
    let standing = (state.remaining, state.next_in);
    reads_as_limit(&field, state.name.as_str(), standing);
    let told = accepted.iter().find(|policy| state.name == *policy.name);
    assert!(told.is_some_and(|policy| !policy.shadow));
    // Whoever is told to wait is told so at least as long as `t` says.
    if let Some(wait) = decision.retry_after() {
        assert!(wait >= state.next_in, "{wait:?} {state:?}");
    }
}

/// The writers by themselves, with any numbers.
fn writers(input: &Input<'_>) {
    let [first, second, third, fourth] = input.figures;

    let (name, count, unit) = input.count;
    if let Ok(name) = Name::new(name) {
        let start = headers::limit_field_start(&name);
        let standing = (first.min(text::MAX_INTEGER), Duration::from_nanos(second));
        let field = headers::limit_field(&start, first, second);
        reads_as_limit(&field, name.as_str(), standing);

        let quotas: Vec<(Quota, Unit)> = input
            .policies
            .iter()
            .filter_map(|given| Some((given.rate.quota()?, given.unit.into())))
            .collect();
        let counted = headers::PolicyItem::count(&name, count, unit.into());
        let rates = quotas
            .iter()
            .map(|(quota, unit)| headers::PolicyItem::rate(&name, quota, *unit));
        let field = headers::policy_field(std::iter::once(counted).chain(rates)).unwrap();
        let items = list(&field);
        assert_eq!(items.len(), quotas.len() + 1);
        let [counted, rates @ ..] = &items[..] else {
            unreachable!("one at least")
        };
        assert_eq!(text_of(&counted.bare_item), name.as_str());
        assert_eq!(
            integer(counted, "q"),
            Some(u128::from(count.min(text::MAX_INTEGER)))
        );
        assert_eq!(integer(counted, "w"), None, "no window");
        reads_as_unit(counted, unit.into());
        for (item, (quota, unit)) in rates.iter().zip(&quotas) {
            reads_as_rate(item, name.as_str(), quota, *unit);
        }
    }

    let figures = legacy::Figures {
        unit: unit.into(),
        limit: third,
        remaining: fourth,
        full_in: second,
    };
    reads_as_x_ratelimit(&figures, input.unix_time);
    reads_as_openai(&figures);

    let (wait, most, entropy) = input.jitter;
    let told = jitter::jittered(wait, most, entropy);
    assert!(told >= wait, "earlier");
    assert!(told <= wait.saturating_add(most), "later than the most");
}

fn reads_as_rate(item: &Item, name: &str, quota: &Quota, unit: Unit) {
    assert_eq!(text_of(&item.bare_item), name);
    let window = integer(item, "w").unwrap();
    let told = integer(item, "q").unwrap();
    let period = quota.period().as_nanos();
    assert!(window >= 1, "a window of nothing");
    assert!(window * SECOND >= period && (window - 1) * SECOND < period);
    let real = u128::from(quota.limit()) * window * SECOND;
    assert!(told * period <= real, "more than the quota is told");
    assert!(
        (told + 1) * period > real || told == u128::from(text::MAX_INTEGER),
        "less than the quota is told"
    );
    if period == window * SECOND {
        assert_eq!(told, u128::from(quota.limit()));
    }
    reads_as_unit(item, unit);
}

fn reads_as_unit(item: &Item, unit: Unit) {
    let (name, value) = match unit {
        Unit::Requests => ("", ""),
        Unit::Tokens => ("spark-unit", "tokens"),
        unit => ("qu", unit.as_str()),
    };
    let mut known = vec!["q", "w"];
    if !name.is_empty() {
        known.push(name);
        assert_eq!(text_of(&item.params[name]), value);
    }
    for key in item.params.keys() {
        assert!(known.contains(&key.as_str()), "{key:?} is nothing of ours");
    }
}

fn reads_as_limit(field: &HeaderValue, name: &str, (remaining, next_in): (u64, Duration)) {
    let items = list(field);
    let [item] = &items[..] else {
        panic!("one policy is told of, not {field:?}")
    };
    assert_eq!(text_of(&item.bare_item), name);
    assert_eq!(integer(item, "r"), Some(u128::from(remaining)));
    let next_in = next_in.as_nanos();
    match integer(item, "t") {
        None => assert_eq!(next_in, 0),
        Some(t) => {
            assert!(t * SECOND >= next_in, "earlier than the next unit");
            assert!((t - 1) * SECOND < next_in, "later than need be");
        }
    }
    assert_eq!(item.params.len(), 1 + usize::from(next_in > 0));
}

fn reads_as_x_ratelimit(figures: &legacy::Figures, unix_time: Duration) {
    let mut fields = HeaderMap::new();
    legacy::write_x_ratelimit(&mut fields, figures, unix_time);
    let number = |name| -> u64 { str_of(&fields[name]).parse().unwrap() };
    assert_eq!(fields.len(), 3);
    let most = text::MAX_INTEGER;
    assert_eq!(number("x-ratelimit-limit"), figures.limit.min(most));
    assert_eq!(number("x-ratelimit-remaining"), figures.remaining.min(most));
    let full = unix_time.saturating_add(Duration::from_nanos(figures.full_in));
    let reset = number("x-ratelimit-reset");
    if reset < most {
        assert!(Duration::from_secs(reset) >= full, "before it is full");
        assert!(Duration::from_secs(reset.saturating_sub(1)) < full || reset == 0);
    }
}

fn reads_as_openai(figures: &legacy::Figures) {
    let mut fields = HeaderMap::new();
    legacy::write_openai(&mut fields, figures);
    let unit = match figures.unit {
        Unit::Requests => "requests",
        Unit::Tokens => "tokens",
        _ => return assert!(fields.is_empty()),
    };
    assert_eq!(fields.len(), 3);
    let field = |what: &str| str_of(&fields[format!("x-ratelimit-{what}-{unit}")]);
    let number = |what| -> u64 { field(what).parse().unwrap() };
    let most = text::MAX_INTEGER;
    assert_eq!(number("limit"), figures.limit.min(most));
    assert_eq!(number("remaining"), figures.remaining.min(most));

    let written = field("reset");
    let read = go_duration(written).unwrap_or_else(|| panic!("{written:?} is no duration"));
    let meant = u128::from(figures.full_in);
    assert!(read >= meant && read - meant < 1_000_000, "{written:?}");
    assert_eq!(written, as_go_writes(read), "not the form of Go");
}

/// Go's `time.ParseDuration`, of what has no sign: the nanoseconds.
fn go_duration(text: &str) -> Option<u128> {
    if text == "0" {
        return Some(0);
    }
    let mut total = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let whole = digits(&mut rest);
        let fraction = match rest.strip_prefix('.') {
            Some(behind) => {
                rest = behind;
                digits(&mut rest)
            }
            None => "",
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = rest
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (unit, behind) = rest.split_at(end);
        rest = behind;
        let unit: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        if !whole.is_empty() {
            total += whole.parse::<u128>().ok()? * unit;
        }
        if !fraction.is_empty() {
            let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
            total += fraction.parse::<u128>().ok()? * unit / scale;
        }
    }
    (!text.is_empty()).then_some(total)
}

fn digits<'a>(rest: &mut &'a str) -> &'a str {
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (digits, behind) = rest.split_at(end);
    *rest = behind;
    digits
}

/// Go's `Duration.String`, of whole milliseconds.
fn as_go_writes(nanos: u128) -> String {
    let millis = nanos / 1_000_000;
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 1_000 {
        return format!("{millis}ms");
    }
    let seconds = format!("{}.{:03}", millis / 1_000 % 60, millis % 1_000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    if hours > 0 {
        format!("{hours}h{minutes}m{seconds}s")
    } else if minutes > 0 {
        format!("{minutes}m{seconds}s")
    } else {
        format!("{seconds}s")
    }
}

/// The field as a list of strings with parameters.
fn list(field: &HeaderValue) -> Vec<Item> {
    let list: List = Parser::new(field.as_bytes())
        .parse()
        .unwrap_or_else(|error| panic!("{field:?} is no list: {error}"));
    list.into_iter()
        .map(|entry| match entry {
            ListEntry::Item(item) => item,
            ListEntry::InnerList(_) => panic!("{field:?} holds a list"),
        })
        .collect()
}

fn text_of(item: &BareItem) -> &str {
    item.as_string().expect("a string").as_str()
}

/// A parameter that is an integer, and not negative.
fn integer(item: &Item, key: &str) -> Option<u128> {
    let value = item.params.get(key)?.as_integer().expect("an integer");
    Some(u128::try_from(i64::from(value)).expect("not negative"))
}

fn str_of(value: &HeaderValue) -> &str {
    value.to_str().expect("visible characters")
}

impl Rate {
    fn quota(self) -> Option<Quota> {
        let shift = u32::from(self.shift) % 64;
        let per = match self.per {
            Per::Nanos(nanos) => Duration::from_nanos(nanos),
            Per::Millis(millis) => Duration::from_millis(millis.into()),
            Per::Seconds(seconds) => Duration::from_secs(seconds.into()),
            Per::Any(any) => any,
        };
        let quota = Quota::new(self.quota >> shift, per).ok()?;
        match self.burst {
            Some(burst) => quota.burst(burst >> shift).ok(),
            None => Some(quota),
        }
    }
}

impl From<UnitOf> for Unit {
    fn from(unit: UnitOf) -> Self {
        match unit {
            UnitOf::Requests => Self::Requests,
            UnitOf::ContentBytes => Self::ContentBytes,
            UnitOf::ConcurrentRequests => Self::ConcurrentRequests,
            UnitOf::Tokens => Self::Tokens,
        }
    }
}
