//! What a flood of ten million addresses does to a limiter: to its memory, to the time of a
//! decision, and to those who are refused already.
//!
//! ```sh
//! cargo run --release -p spark-ratelimit --example flood
//! ```
//!
//! Each claim is a line `PASS` or `FAIL`, and a failure makes the exit code 1. Time inside the limiter
//! is simulated, so it decides alike on every machine; what a decision takes is real time, without a
//! reading of the system's clock.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that tells, and stops where its premise is wrong"
)]

use std::net::{IpAddr, Ipv6Addr};
use std::process::ExitCode;
use std::time::Duration;

use allocation_counter::{measure, opt_out};
use spark_core::ClientIp;
use spark_core::testing::TestClock;
use spark_ratelimit::{Key, Limiter, Policy, Quota};

const SLOTS: usize = 1 << 20;
const FLOOD: u64 = 10_000_000;
const MIB: f64 = 1_048_576.0;

fn main() -> ExitCode {
    let mut claims = Claims { failed: 0 };
    memory_and_time(&mut claims);
    abusers(&mut claims, SLOTS, 1_000_000);
    abusers(&mut claims, 131_072, 100_000);
    match claims.failed {
        0 => {
            println!("\nevery claim holds");
            ExitCode::SUCCESS
        }
        failed => {
            println!("\n{failed} claims failed");
            ExitCode::FAILURE
        }
    }
}

/// One unit a second, a hundred at once.
fn limiter(slots: usize, clock: &TestClock) -> Limiter {
    let quota = Quota::new(100, Duration::from_secs(100)).unwrap();
    Limiter::builder()
        .clock(clock.clock())
        .policy(Policy::new("requests", quota).unwrap())
        .capacity(slots)
        .build()
        .unwrap()
}

/// The `n`th caller: a /64 of IPv6, of which an attacker has as many as it likes.
fn caller(n: u64) -> Key {
    let network = 0x2001_0db8_0000_0000 + n;
    let address = Ipv6Addr::from_bits(u128::from(network) << 64 | 1);
    Key::network(ClientIp::new(IpAddr::V6(address)), 64)
}

fn memory_and_time(claims: &mut Claims) {
    println!("a table of {SLOTS} slots, and {FLOOD} callers that it has never seen");
    let clock = TestClock::new();
    caller(0);
    let before = resident();

    let mut limiter = None;
    let built = measure(|| limiter = Some(self::limiter(SLOTS, &clock)));
    let limiter = limiter.unwrap();
    // A million other callers write to every page of it, or else some would not be there yet.
    for n in 0..1_000_000 {
        limiter.check(&caller(1 << 31 | n), None, 1);
    }
    let touched = resident();

    let mut tenths = Vec::with_capacity(10);
    let mut refused = 0u64;
    let flood = measure(|| {
        for tenth in 0..10 {
            let nanos = fastest(tenth * FLOOD / 10, FLOOD / 10, |n| {
                refused += u64::from(!limiter.check(&caller(n), None, 1).allowed());
                if n % 1_000 == 0 {
                    clock.advance(Duration::from_millis(1));
                }
            });
            tenths.push(nanos);
            opt_out(|| println!("  tenth {:>2}: {nanos:>6.1} ns a decision", tenth + 1));
        }
    });
    let after = resident();

    let heap = built.bytes_max as f64;
    claims.at_most("heap, MiB, by the allocator", heap / MIB, 18.0);
    match (before, touched, after) {
        (Some(before), Some(touched), Some(after)) => {
            let taken = (after as f64 - before as f64) / MIB;
            let grown = (after as f64 - touched as f64) / 1_024.0;
            claims.at_most("resident memory, MiB, after the flood", taken, 18.0);
            claims.at_most("of which KiB came with the flood", grown, 256.0);
        }
        _ => println!("  ----  resident memory: no /proc/self/statm here"),
    }
    claims.at_most(
        "allocations during the flood",
        flood.count_total as f64,
        0.0,
    );
    claims.at_most("strangers refused", refused as f64, 0.0);
    let least = tenths.iter().copied().fold(f64::INFINITY, f64::min);
    let most = tenths.iter().copied().fold(0.0, f64::max);
    claims.at_most("slowest tenth / fastest tenth", most / least, 1.5);
    println!("  {:?}", limiter.stats()[0]);
}

/// Some callers have used up everything and go on asking, while strangers come at that rate for ten
/// seconds. Nobody may get more than the one unit a second that is everybody's.
fn abusers(claims: &mut Claims, slots: usize, rate: u64) {
    const ABUSERS: u64 = 5_000;
    const SECONDS: u64 = 10;
    /// Each asks so often in a second.
    const ASKS: u64 = 10;
    println!(
        "\n{ABUSERS} exhausted callers among {slots} slots, {rate} strangers a second for {SECONDS} s"
    );
    let clock = TestClock::new();
    let limiter = limiter(slots, &clock);
    let abuser = |n: u64| caller(1 << 31 | n);
    for n in 0..ABUSERS {
        let granted = (0..101).filter(|_| limiter.check(&abuser(n), None, 1).allowed());
        assert_eq!(granted.count(), 100, "the burst, and not one more");
    }

    // Strangers come evenly, and between them the abusers ask in turn.
    let strangers = rate / (ABUSERS * ASKS);
    let step = Duration::from_nanos(1_000_000_000 / (ABUSERS * ASKS));
    let mut granted = vec![0u64; ABUSERS as usize];
    let (mut elapsed, mut stranger) = (Duration::ZERO, 0);
    let (mut asked, mut early, mut late) = (0u64, 0u64, 0u64);
    for second in 1..=SECONDS {
        for n in (0..ASKS).flat_map(|_| 0..ABUSERS) {
            for _ in 0..strangers {
                assert!(limiter.check(&caller(stranger), None, 1).allowed());
                stranger += 1;
            }
            clock.advance(step);
            elapsed += step;
            asked += 1;
            // Exhausted at zero: so many units have come back since, and no more.
            let due = elapsed.as_secs();
            let allowed = limiter.check(&abuser(n), None, 1).allowed();
            let count = &mut granted[n as usize];
            early += u64::from(allowed && *count + 1 > due);
            late += u64::from(!allowed && *count < due);
            *count += u64::from(allowed);
        }
        println!("  second {second:>2}: {stranger:>8} strangers, {early} admitted too early");
    }
    let total: u64 = granted.iter().sum();
    println!(
        "  {asked} times asked, {total} admitted; {:?}",
        limiter.stats()[0]
    );
    claims.at_most("admitted beyond the refill", early as f64, 0.0);
    claims.at_most("refused though refilled", late as f64, 0.0);
}

/// What is claimed of a figure, and whether it is so.
struct Claims {
    failed: u32,
}

impl Claims {
    fn at_most(&mut self, what: &str, figure: f64, limit: f64) {
        let holds = figure <= limit;
        self.failed += u32::from(!holds);
        let verdict = if holds { "PASS" } else { "FAIL" };
        println!("  {verdict}  {what}: {figure:.3} <= {limit}");
    }
}

/// Nanoseconds for each of so many, in the fastest twentieth of them: what the work takes when no
/// neighbour is in its way.
fn fastest(from: u64, count: u64, mut work: impl FnMut(u64)) -> f64 {
    let part = count / 20;
    let parts = (0..20).map(|nth| {
        let start = now();
        for n in 0..part {
            work(from + nth * part + n);
        }
        start.elapsed().as_secs_f64() * 1e9 / part as f64
    });
    parts.fold(f64::INFINITY, f64::min)
}

/// Bytes of this process that are in memory.
fn resident() -> Option<u64> {
    const PAGE: u64 = 4_096;
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * PAGE)
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a decision takes is real"
)]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
