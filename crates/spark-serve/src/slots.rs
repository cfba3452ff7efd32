//! How many connections are open, and from where.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spark_core::ClientIp;

use crate::config::Config;
use crate::metrics::{self, Refused};

/// Counts connections against the two limits.
#[derive(Debug)]
pub(crate) struct Slots {
    max: usize,
    per_ip: Option<usize>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    /// Empty without a limit per address; never more entries than connections.
    by_ip: HashMap<IpAddr, usize>,
}

/// The place of one connection, free again when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    ip: IpAddr,
}

impl Slots {
    pub(crate) fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            max: config.max_connections,
            per_ip: config.max_connections_per_ip,
            open: Mutex::default(),
        })
    }

    pub(crate) fn take(self: &Arc<Self>, peer: IpAddr) -> Result<Slot, Refused> {
        let ip = ClientIp::new(peer).network(64);
        let mut open = self.lock();
        if open.total >= self.max {
            return Err(Refused::Full);
        }
        if let Some(max) = self.per_ip {
            let from_there = open.by_ip.entry(ip).or_default();
            if *from_there >= max {
                return Err(Refused::PerIp);
            }
            *from_there += 1;
        }
        open.total += 1;
        metrics::opened();
        Ok(Slot {
            slots: Arc::clone(self),
            ip,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.slots.lock();
        open.total = open.total.saturating_sub(1);
        if let Some(from_there) = open.by_ip.get_mut(&self.ip) {
            *from_there = from_there.saturating_sub(1);
            if *from_there == 0 {
                open.by_ip.remove(&self.ip);
            }
        }
        metrics::closed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_given_and_given_back() {
        let config = Config::default()
            .max_connections(3)
            .max_connections_per_ip(2);
        let slots = Slots::new(&config);
        let one = slots.take(ip("192.0.2.1")).unwrap();
        let _mapped = slots.take(ip("::ffff:192.0.2.1")).unwrap();
        assert_eq!(slots.take(ip("192.0.2.1")).unwrap_err(), Refused::PerIp);
        let _other = slots.take(ip("2001:db8::1")).unwrap();
        assert_eq!(slots.take(ip("2001:db8::2")).unwrap_err(), Refused::Full);
        drop(one);
        let _again = slots.take(ip("2001:db8::2")).unwrap();
        assert_eq!(slots.lock().by_ip.len(), 2);
    }

    #[test]
    fn nothing_is_left_behind() {
        let slots = Slots::new(&Config::default().max_connections_per_ip(10));
        for number in 0..=255 {
            drop(slots.take(ip(&format!("192.0.2.{number}"))));
        }
        let open = slots.lock();
        assert_eq!((open.total, open.by_ip.len()), (0, 0));
    }
}
