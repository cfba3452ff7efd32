//! The name that a refusal carries.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The name of the breaker that refused, as text.
///
/// One of up to 22 bytes is held in place: threads that are refused at the same time would else meet
/// at its count of references, and a refusal would cost them three times as much.
///
/// # Example
/// ```
/// use spark_breaker::{Breaker, Config, Mode};
/// let breaker = Breaker::new("search", Config::standard(), spark_core::Clock::system())?;
/// breaker.set_mode(Mode::ForcedOpen);
/// let name = breaker.try_acquire().unwrap_err().name;
/// assert_eq!(&*name, "search");
/// assert_eq!(name.to_string().len(), 6);
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct BreakerName(Held);

const SHORT: usize = 22;

#[derive(Clone)]
enum Held {
    Short { length: u8, text: [u8; SHORT] },
    Long(Arc<str>),
}

impl BreakerName {
    pub(crate) fn of(name: &Arc<str>) -> Self {
        let mut text = [0; SHORT];
        let Some(place) = text.get_mut(..name.len()) else {
            return Self(Held::Long(Arc::clone(name)));
        };
        place.copy_from_slice(name.as_bytes());
        let length = name.len() as u8;
        Self(Held::Short { length, text })
    }
}

impl Deref for BreakerName {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            // It was text, and whole, when it was put in.
            Held::Short { length, text } => text
                .get(..usize::from(*length))
                .and_then(|text| std::str::from_utf8(text).ok())
                .unwrap_or_default(),
            Held::Long(name) => name,
        }
    }
}

impl PartialEq for BreakerName {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for BreakerName {}

impl fmt::Display for BreakerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for BreakerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_length_read_back() {
        for length in 0..=128 {
            let text = "é-name".chars().cycle().take(length).collect::<String>();
            let name = BreakerName::of(&text.as_str().into());
            assert_eq!((&*name, name.to_string()), (text.as_str(), text.clone()));
            assert_eq!(name, name.clone());
        }
        assert_eq!(size_of::<BreakerName>(), 24);
    }
}
