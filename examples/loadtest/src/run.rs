//! One run, from the first word to the verdict.

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderValue, StatusCode, Uri};
use spark_core::{Clock, Instant};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::args::{Cli, Failing, Load, Scenario, Secret};
use crate::client::{Client, bearer};
use crate::control::{IssuedKey, set_mode};
use crate::outcome::Outcome;
use crate::report::{self, Progress};
use crate::schedule::Schedule;
use crate::tally::Tally;
use crate::target::Target;
use crate::verdict::Thresholds;
use crate::workload::Workload;

/// Runs the scenario; true when every threshold held, an error when it could not begin.
pub(crate) async fn run(cli: Cli) -> Result<bool, String> {
    match cli.scenario {
        Scenario::Steady(load) => {
            let thresholds = Thresholds::steady(&load);
            measure(load, Duration::from_secs(30), thresholds, None).await
        }
        Scenario::Failing(failing) => {
            let thresholds = Thresholds::failing(&failing);
            let whole = failing.load.duration.unwrap_or(Duration::from_secs(60));
            let fault = Fault::plan(&failing, whole)?;
            measure(failing.load, whole, thresholds, fault).await
        }
    }
}

async fn measure(
    load: Load,
    default_duration: Duration,
    thresholds: Thresholds,
    fault: Option<Fault>,
) -> Result<bool, String> {
    load.url.allow(load.allow_remote)?;
    let clock = Clock::system();
    let client = Client::new(clock.clone(), load.timeout, load.max_in_flight.get());
    if let Some(fault) = &fault {
        fault.upstream.allow(load.allow_remote)?;
        set_mode(&client, &fault.upstream, "ok").await?;
    }
    let issued = match &load.master_key_file {
        None => None,
        Some(file) => {
            let master = std::fs::read_to_string(file);
            let master = master.map_err(|error| format!("{}: {error}", file.display()))?;
            let master: Secret = master
                .parse()
                .map_err(|e| format!("{}: {e}", file.display()))?;
            Some(IssuedKey::issue(&client, &load.url, &master, &load.tier).await?)
        }
    };
    let key = issued
        .as_ref()
        .map(|issued| &issued.key)
        .or(load.key.as_ref());
    let run = Run {
        uri: load.url.uri("/api/spark/generate")?,
        key: key.map(bearer).transpose()?,
        workload: Workload::new(&load, clock.unix_time().as_nanos() as u64),
        max_in_flight: load.max_in_flight,
        permits: Arc::new(Semaphore::new(load.max_in_flight.get())),
        tally: Arc::new(Mutex::new(Tally::new()?)),
        client: client.clone(),
        clock,
        thresholds,
    };
    let schedule = Schedule::new(
        load.rate,
        load.arrivals,
        load.duration.unwrap_or(default_duration),
    );
    let result = run.whole(&load, schedule, fault.as_ref()).await;

    // Whatever happened, leave things as they were found.
    if let Some(fault) = &fault
        && let Err(reason) = set_mode(&client, &fault.upstream, "ok").await
    {
        eprintln!("the upstream may be left failing: {reason}");
    }
    if let Some(issued) = issued
        && let Err(reason) = issued.revoke(&client, &load.url).await
    {
        eprintln!("the key of this run is left behind: {reason}");
    }
    result
}

/// A failure of the provider, on cue.
#[derive(Debug)]
struct Fault {
    upstream: Target,
    mode: String,
    after: Duration,
    lasts: Duration,
}

impl Fault {
    fn plan(failing: &Failing, whole: Duration) -> Result<Option<Self>, String> {
        let Some(upstream) = failing.upstream_control.clone() else {
            return Ok(None);
        };
        let after = failing.fail_after.unwrap_or(whole / 6);
        let lasts = failing.fail_for.unwrap_or(whole / 2);
        if after.saturating_add(lasts) >= whole {
            return Err("--fail-after and --fail-for leave no time to recover in: \
                        raise --duration"
                .into());
        }
        Ok(Some(Self {
            upstream,
            mode: failing.fail_mode.clone(),
            after,
            lasts,
        }))
    }
}

struct Run {
    uri: Uri,
    key: Option<HeaderValue>,
    workload: Workload,
    max_in_flight: NonZeroUsize,
    permits: Arc<Semaphore>,
    tally: Arc<Mutex<Tally>>,
    client: Client,
    clock: Clock,
    thresholds: Thresholds,
}

impl Run {
    async fn whole(
        &self,
        load: &Load,
        schedule: Schedule,
        fault: Option<&Fault>,
    ) -> Result<bool, String> {
        self.look().await?;
        let start = self.clock.now();
        let sending = async {
            tokio::select! {
                () = self.send(schedule, start) => {}
                _ = tokio::signal::ctrl_c() => eprintln!("stopped early"),
            }
            let sent_for = self.clock.now().saturating_duration_since(start);
            self.drain(load.timeout).await;
            sent_for
        };
        let sent_for = tokio::select! {
            sent_for = sending => sent_for,
            never = self.show_progress(load, start) => match never {},
            Err(reason) = self.provoke(fault, start) => return Err(reason),
        };

        let now = self.clock.now();
        let tally = self.tally();
        let spell = tally.recovery.longest_spell(now);
        let checks = self.thresholds.judge(&tally, spell, fault.is_some());
        let mut out = report::table(&tally, load.rate, sent_for);
        if let Some(felt) = tally.recovery.felt() {
            out = format!("{out}\n{}", report::failure(felt, spell));
        }
        drop(tally);
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{out}\n{}", report::verdict(&checks))
            .map_err(|error| format!("stdout: {error}"))?;
        Ok(checks.iter().all(|check| check.held))
    }

    /// Asks once, so that a wrong key or address is named before the load begins.
    async fn look(&self) -> Result<(), String> {
        let exchange = self
            .client
            .generate(self.uri.clone(), self.key.clone(), self.workload.first())
            .await;
        match (exchange.outcome, exchange.status) {
            (Outcome::NoAnswer, _) => Err(format!(
                "nothing answers at {}: start it with `cargo run --release -p spark-server`",
                self.uri
            )),
            (_, Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)) => Err(
                "the server wants a key, or another one: --master-key-file spark-data/master.key \
                 issues one, SPARK_KEY passes one on"
                    .into(),
            ),
            (_, Some(StatusCode::NOT_FOUND)) => Err(format!("{} is no route there", self.uri)),
            _ => Ok(()),
        }
    }

    async fn send(&self, schedule: Schedule, start: Instant) {
        for (index, due) in (0..).zip(schedule) {
            let due = start.saturating_add(due);
            let wait = due.saturating_duration_since(self.clock.now());
            // When late, the backlog leaves at once: its latencies count from when it was due.
            if !wait.is_zero() {
                sleep(wait).await;
            }
            let Ok(permit) = self.permits.clone().try_acquire_owned() else {
                self.tally().dropped();
                continue;
            };
            self.tally().started(due, self.clock.now());
            let job = self.workload.job(index);
            let (uri, key) = (self.uri.clone(), self.key.clone());
            let (client, tally) = (self.client.clone(), self.tally.clone());
            tokio::spawn(async move {
                let exchange = client.generate(uri, key, job).await;
                lock(&tally).ended(due, &exchange);
                drop(permit);
            });
        }
    }

    /// Waits for what is under way: each request has its own timeout.
    async fn drain(&self, timeout: Duration) {
        let all = u32::try_from(self.max_in_flight.get()).unwrap_or(u32::MAX);
        let all = self.permits.acquire_many(all);
        let _ = tokio::time::timeout(timeout + Duration::from_secs(1), all).await;
    }

    async fn show_progress(&self, load: &Load, start: Instant) -> std::convert::Infallible {
        let (mut before, mut ended_before) = (start, 0);
        loop {
            sleep(Duration::from_secs(1)).await;
            let now = self.clock.now();
            let tally = self.tally();
            let dropped = tally.row(Outcome::Dropped).count();
            let ended = tally.arrived() - dropped;
            let progress = Progress {
                elapsed: now.saturating_duration_since(start),
                asked: load.rate,
                ended: (ended - ended_before, now.saturating_duration_since(before)),
                in_flight: self.max_in_flight.get() - self.permits.available_permits(),
                p99: tally.answers().quantile(0.99),
                errors: tally.errors(self.thresholds.provider_fails()),
                dropped,
            };
            drop(tally);
            (before, ended_before) = (now, ended);
            eprintln!("{}", progress.line());
        }
    }

    /// Makes the provider fail and recover; then, or without a fault, waits for ever.
    async fn provoke(&self, fault: Option<&Fault>, start: Instant) -> Result<(), String> {
        if let Some(fault) = fault {
            let until = |moment: Duration| {
                let moment = start.saturating_add(moment);
                sleep(moment.saturating_duration_since(self.clock.now()))
            };
            until(fault.after).await;
            set_mode(&self.client, &fault.upstream, &fault.mode).await?;
            self.tally().recovery.begin(self.clock.now());
            eprintln!("the upstream fails now: {}", fault.mode);
            until(fault.after + fault.lasts).await;
            set_mode(&self.client, &fault.upstream, "ok").await?;
            self.tally().recovery.end(self.clock.now());
            eprintln!("the upstream is well again");
        }
        std::future::pending().await
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tally)
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}
