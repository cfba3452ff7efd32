//! The list of keys, page by page.

use std::collections::BinaryHeap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::authenticator::Authenticator;
use crate::index::KeyId;
use crate::info::KeyInfo;
use crate::key::ID_LEN;

/// Some of the keys, oldest first.
///
/// # Example
/// ```
/// # use spark_auth::*;
/// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
/// let page: KeyPage = auth.page(None, 100);
/// assert!(page.keys.is_empty() && page.next.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<KeyInfo>,
    /// Where the next page begins; nothing after the last.
    pub next: Option<PageMark>,
}

/// A place in the list of keys. It is text for whoever asks for the next page, and stays a place when
/// the keys around it are forgotten meanwhile.
///
/// # Example
/// ```
/// use spark_auth::PageMark;
/// let mark: PageMark = "1900000000000-abcdefghijkl".parse()?;
/// assert_eq!(mark.to_string(), "1900000000000-abcdefghijkl");
/// assert!("abcdefghijkl".parse::<PageMark>().is_err());
/// # Ok::<(), spark_auth::PageMarkError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageMark {
    /// When the last key of the page was made.
    created_at: Duration,
    id: [u8; ID_LEN],
}

/// The text is no place in the list of keys.
///
/// # Example
/// ```
/// assert!("nobody".parse::<spark_auth::PageMark>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not what a page of keys names as its next")]
pub struct PageMarkError;

impl fmt::Display for PageMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = std::str::from_utf8(&self.id).unwrap_or_default();
        write!(f, "{}-{id}", self.created_at.as_millis())
    }
}

impl FromStr for PageMark {
    type Err = PageMarkError;

    fn from_str(text: &str) -> Result<Self, PageMarkError> {
        let (millis, id) = text.split_once('-').ok_or(PageMarkError)?;
        let is_number = !millis.is_empty() && millis.bytes().all(|byte| byte.is_ascii_digit());
        let created_at = millis.parse().map_err(|_| PageMarkError)?;
        if !is_number || KeyId::of(id).is_none() {
            return Err(PageMarkError);
        }
        Ok(Self {
            created_at: Duration::from_millis(created_at),
            id: id.as_bytes().try_into().map_err(|_| PageMarkError)?,
        })
    }
}

impl Authenticator {
    /// At most `most` of the keys, oldest first, that follow `after`. It reads all keys and collects
    /// only those of the page.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # use spark_core::Name;
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// for _ in 0..3 {
    ///     auth.issue(NewKey::new(Name::new("acme")?))?;
    /// }
    /// let first = auth.page(None, 2);
    /// let second = auth.page(first.next, 2);
    /// assert_eq!((first.keys.len(), second.keys.len(), second.next), (2, 1, None));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn page(&self, after: Option<PageMark>, most: usize) -> KeyPage {
        let moment = self.moment();
        // The smallest ones, with the largest of them on top: one more than asked for tells whether
        // there is another page.
        let mut found: BinaryHeap<PageMark> = BinaryHeap::new();
        for entry in self.memory().entries() {
            let record = &entry.record;
            let Ok(id) = record.id.as_str().as_bytes().try_into() else {
                continue;
            };
            let created_at = record.created_at;
            let mark = PageMark { created_at, id };
            if after.is_some_and(|after| mark <= after) {
                continue;
            }
            if found.len() <= most {
                found.push(mark);
            } else if let Some(mut last) = found.peek_mut()
                && mark < *last
            {
                *last = mark;
            }
        }
        let mut found = found.into_sorted_vec();
        let is_last = found.len() <= most;
        found.truncate(most);
        let next = found.last().copied();
        // One that was forgotten since is left out.
        let entry = |mark: &PageMark| self.memory().get(KeyId::new(&mark.id));
        let entries = found.iter().filter_map(entry);
        KeyPage {
            keys: entries.map(|entry| entry.info(moment)).collect(),
            next: next.filter(|_| !is_last),
        }
    }
}

#[cfg(test)]
mod tests {
    use spark_core::Name;
    use spark_core::testing::TestClock;

    use super::*;
    use crate::{MemoryStore, NewKey, Pepper};

    #[test]
    fn the_pages_hold_every_key_once() {
        let clock = TestClock::new();
        let auth = Authenticator::builder()
            .clock(clock.clock())
            .pepper(Pepper::generate().unwrap())
            .store(MemoryStore::new())
            .build()
            .unwrap();
        for second in [1_u64, 1, 1, 2, 2, 3, 3] {
            clock.set_unix_time(Duration::from_secs(1_900_000_000 + second));
            auth.issue(NewKey::new(Name::new("acme").unwrap())).unwrap();
        }
        for most in [1, 2, 3, 6, 7, 8] {
            let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
            loop {
                let page = auth.page(after, most);
                assert!(page.keys.len() <= most);
                found.extend(page.keys);
                pages += 1;
                // As text there and back, which is how it travels.
                after = page.next.map(|mark| mark.to_string().parse().unwrap());
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found, auth.list(), "{most}");
            assert_eq!(pages, 7_usize.div_ceil(most), "{most}");
        }
    }

    #[test]
    fn a_page_goes_on_where_a_key_was_forgotten() {
        let clock = TestClock::new();
        clock.set_unix_time(Duration::from_secs(1_900_000_000));
        let auth = Authenticator::builder()
            .clock(clock.clock())
            .pepper(Pepper::generate().unwrap())
            .store(MemoryStore::new())
            .max_keys(3)
            .build()
            .unwrap();
        for _ in 0..3 {
            clock.set_unix_time(auth.now() + Duration::from_secs(1));
            auth.issue(NewKey::new(Name::new("acme").unwrap())).unwrap();
        }
        let first = auth.page(None, 1);
        let id = first.keys[0].id.clone();
        auth.revoke(id.as_str()).unwrap();
        // The next one needs its room.
        clock.set_unix_time(auth.now() + Duration::from_secs(1));
        auth.issue(NewKey::new(Name::new("acme").unwrap())).unwrap();
        assert!(auth.get(id.as_str()).is_none());
        assert_eq!(auth.page(first.next, 9).keys, auth.list());
    }

    #[test]
    fn no_text_but_a_mark_is_one() {
        for text in [
            "",
            "-",
            "abcdefghijkl",
            "-abcdefghijkl",
            "+1-abcdefghijkl",
            "1-abcdefghijk",
            "1-abcdefghijk!",
            "99999999999999999999999-abcdefghijkl",
        ] {
            assert_eq!(text.parse::<PageMark>(), Err(PageMarkError), "{text}");
        }
        let largest = format!("{}-abcdefghijkl", u64::MAX);
        assert_eq!(largest.parse::<PageMark>().unwrap().to_string(), largest);
    }
}
