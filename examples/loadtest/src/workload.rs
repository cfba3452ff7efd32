//! What is asked.

use std::str::FromStr;

use bytes::Bytes;
use serde_json::json;

use crate::args::Load;
use crate::schedule::scramble;

/// How a request is asked, and what is hoped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One of a few prompts, over and over: the cache should answer.
    Repeated,
    /// A prompt that was never asked before.
    Fresh,
    /// A fresh prompt, streamed.
    Stream,
}

/// The weights of the kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mix {
    hits: u32,
    misses: u32,
    streams: u32,
}

impl Mix {
    fn pick(self, index: u64) -> Kind {
        let [hits, misses, streams] = [self.hits, self.misses, self.streams].map(u64::from);
        // Parsing made sure that the sum is not 0.
        match scramble(index) % (hits + misses + streams).max(1) {
            ticket if ticket < hits => Kind::Repeated,
            ticket if ticket < hits + misses => Kind::Fresh,
            _ => Kind::Stream,
        }
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut mix = Self {
            hits: 0,
            misses: 0,
            streams: 0,
        };
        for part in text.split(',') {
            let wrong = || format!("{part:?}: write it as hits=60,misses=30,streams=10");
            let (name, weight) = part.split_once('=').ok_or_else(wrong)?;
            let field = match name.trim() {
                "hits" => &mut mix.hits,
                "misses" => &mut mix.misses,
                "streams" => &mut mix.streams,
                _ => return Err(wrong()),
            };
            *field = weight.trim().parse().map_err(|_| wrong())?;
        }
        if mix
            == (Self {
                hits: 0,
                misses: 0,
                streams: 0,
            })
        {
            return Err("one of the weights must be above 0".into());
        }
        Ok(mix)
    }
}

/// One request's body.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) kind: Kind,
    pub(crate) body: Bytes,
}

/// Makes the body of each request from its number alone.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    mix: Mix,
    prompts: u32,
    max_tokens: u32,
    model: Option<String>,
    provider: Option<String>,
    /// Tells this run's fresh prompts from those of earlier runs, which may still be cached.
    run: u64,
}

impl Workload {
    pub(crate) fn new(load: &Load, run: u64) -> Self {
        Self {
            mix: load.mix,
            prompts: load.prompts.get(),
            max_tokens: load.max_tokens.get(),
            model: load.model.clone(),
            provider: load.provider.clone(),
            run,
        }
    }

    pub(crate) fn job(&self, index: u64) -> Job {
        self.make(self.mix.pick(index), index)
    }

    /// A request outside of the count, to see whether anyone is there.
    pub(crate) fn first(&self) -> Job {
        self.make(Kind::Repeated, 0)
    }

    fn make(&self, kind: Kind, index: u64) -> Job {
        let subject = match kind {
            Kind::Repeated => format!("well-known matter {}", index % u64::from(self.prompts)),
            Kind::Fresh | Kind::Stream => format!("new matter {index} of run {:x}", self.run),
        };
        let mut body = json!({
            "prompt": format!("Please sum up the {subject} in a few plain words."),
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stream": kind == Kind::Stream,
        });
        for (name, value) in [("model", &self.model), ("provider", &self.provider)] {
            if let Some(value) = value {
                body[name] = value.as_str().into();
            }
        }
        Job {
            kind,
            body: body.to_string().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn workload() -> Workload {
        Workload {
            mix: "hits=60,misses=30,streams=10".parse().unwrap(),
            prompts: 5,
            max_tokens: 8,
            model: Some("m".into()),
            provider: None,
            run: 1,
        }
    }

    #[test]
    fn the_weights_are_kept() {
        let workload = workload();
        let count = |kind| {
            (0..10_000)
                .filter(|index| workload.job(*index).kind == kind)
                .count()
                / 100
        };
        assert!(
            (58..=62).contains(&count(Kind::Repeated)),
            "{}",
            count(Kind::Repeated)
        );
        assert!(
            (28..=32).contains(&count(Kind::Fresh)),
            "{}",
            count(Kind::Fresh)
        );
        assert!(
            (8..=12).contains(&count(Kind::Stream)),
            "{}",
            count(Kind::Stream)
        );
    }

    #[test]
    fn few_prompts_are_repeated_and_fresh_ones_never() {
        let workload = workload();
        let bodies = |kind| -> Vec<Bytes> {
            let jobs = (0..1000).map(|index| workload.job(index));
            jobs.filter(|job| job.kind == kind)
                .map(|job| job.body)
                .collect()
        };
        assert_eq!(
            bodies(Kind::Repeated).iter().collect::<HashSet<_>>().len(),
            5
        );
        let fresh = bodies(Kind::Fresh);
        assert_eq!(fresh.iter().collect::<HashSet<_>>().len(), fresh.len());
        let other = Workload {
            run: 2,
            ..workload.clone()
        };
        assert_ne!(
            other.make(Kind::Fresh, 1).body,
            workload.make(Kind::Fresh, 1).body
        );
    }

    #[test]
    fn the_body_is_what_the_route_takes() {
        let job = workload().make(Kind::Stream, 3);
        let body: serde_json::Value = serde_json::from_slice(&job.body).unwrap();
        assert_eq!(body["stream"], true);
        assert_eq!(body["max_tokens"], 8);
        assert_eq!(body["model"], "m");
        assert!(body.get("provider").is_none() && body["prompt"].is_string());
    }

    #[test]
    fn mixes_are_checked() {
        for bad in [
            "",
            "hits",
            "hits=0",
            "hits=x",
            "hats=1",
            "hits=1;misses=2",
            "hits=-1",
        ] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
        let streams: Mix = "streams=1".parse().unwrap();
        assert_eq!(streams.pick(77), Kind::Stream);
    }
}
