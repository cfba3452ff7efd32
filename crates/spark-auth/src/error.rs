//! What can go wrong, each with its mend. No error repeats a secret.

use std::io;
use std::path::PathBuf;

use spark_core::{BoxError, Name};

use crate::key::MAX_CREDENTIAL_LEN;
use crate::record::KeyStatus;

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Too short or too long for any key.
    #[error("a key has 61 to 75 characters, this text has {len} bytes")]
    Length {
        /// Its length in bytes.
        len: usize,
    },
    /// The brand is not 2 to 16 of `a-z 0-9`.
    #[error("the brand of a key is 2 to 16 of a-z 0-9")]
    Brand,
    /// Neither `_sk_live_`, `_mk_live_`, `_sk_test_` nor `_mk_test_` stands where it must.
    #[error(
        "_sk_live_, _mk_live_, _sk_test_ or _mk_test_ must stand before the last 50 characters"
    )]
    Marker,
    /// One of the last 50 characters is no letter or digit.
    #[error("the last 50 characters of a key are letters and digits")]
    Character,
    /// A master key where a user's was wanted, or the other way round.
    #[error("this key is of the other kind: user keys hold _sk_, master keys _mk_")]
    Kind,
    /// The checksum does not match: a typo, or a cut copy.
    #[error("the checksum does not match: the key was mistyped or not copied whole")]
    Checksum,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Randomness,
}

/// Why 32 bytes are not a pepper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PepperError {
    /// Not 64 digits.
    #[error(
        "a pepper is 64 hexadecimal digits, this text has {len} bytes; `openssl rand -hex 32` makes one"
    )]
    Length {
        /// Its length in bytes.
        len: usize,
    },
    /// Not hexadecimal.
    #[error("a pepper holds only the digits 0-9 and a-f; `openssl rand -hex 32` makes one")]
    Digit,
    /// Too regular to be random.
    #[error("this pepper is too regular to be random; `openssl rand -hex 32` makes one")]
    Weak,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Randomness,
}

/// Why a text is not accepted as the master credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MasterKeyError {
    /// It is a user key.
    #[error(
        "this is a user key (_sk_); the master key has _mk_ in its place: generate a new master key"
    )]
    UserKey,
    /// It begins like a key and is none.
    #[error("this looks like a key, but {0}")]
    Broken(KeyError),
    /// Shorter than 32 characters.
    #[error(
        "a master secret has at least 32 characters, this one has {len}; generate a master key instead"
    )]
    Short {
        /// Its length in bytes.
        len: usize,
    },
    /// Longer than what is looked at in a request.
    #[error("a master secret has at most {MAX_CREDENTIAL_LEN} bytes, this one has {len}")]
    Long {
        /// Its length in bytes.
        len: usize,
    },
    /// It cannot travel in a header: a blank, a comma, or no visible ASCII.
    #[error(
        "a master secret is visible ASCII without blanks and commas, but byte {at} is another one"
    )]
    Character {
        /// Where it stands, counted in bytes from zero.
        at: usize,
    },
    /// It was copied from an example.
    #[error(
        "this master secret contains `{word}`, as placeholders do; generate a master key instead"
    )]
    Placeholder {
        /// Which known word it contains.
        word: &'static str,
    },
    /// It could be guessed.
    #[error(
        "this master secret is too regular (about {bits} bits, at least 128 are needed); generate a master key instead"
    )]
    Weak {
        /// A generous estimate.
        bits: u32,
    },
    /// The stored line is not what [`MasterVerifier::to_stored`](crate::MasterVerifier::to_stored) writes.
    #[error("this is not the stored form of a master key; delete it and generate a new master key")]
    Stored,
}

/// Why keys could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process works on the folder.
    #[error(
        "{} is in use by another process{}: use the routes of the running server, or stop it first",
        .path.display(),
        .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The process that holds it, where it is known.
        pid: Option<u32>,
    },
    /// A line that was once written whole can no longer be read. Nothing was changed.
    #[error(
        "{} line {line}: {problem}; restore the file from a backup, or delete this line if the \
         change that it holds may be lost",
        .path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Which line, counted from one.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A write failed earlier in a way that leaves open what the disk holds.
    #[error(
        "an earlier write to {} failed and what the disk holds is uncertain: mend the disk and \
         restart, no further change is accepted until then",
        .path.display()
    )]
    Uncertain {
        /// The file.
        path: PathBuf,
    },
    /// One set of changes is too large to be written as one.
    #[error("one set of changes has {len} bytes, at most {limit} are written as one")]
    TooLarge {
        /// Its size.
        len: usize,
        /// The most that is accepted.
        limit: usize,
    },
    /// Somebody else has changed this record meanwhile. Nothing was changed.
    #[error("the key {id} was changed by another process meanwhile: try again")]
    Conflict {
        /// Which one.
        id: Name,
    },
    /// A store of another make failed.
    #[error("the key store failed: {0}")]
    Other(#[source] BoxError),
}

/// Why an [`Authenticator`](crate::Authenticator) was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No pepper was given.
    #[error(
        "no pepper: give one with `.pepper(..)`, for example Pepper::generate() kept in a file"
    )]
    NoPepper,
    /// No store was given.
    #[error("no store: give one with `.store(..)`, for example FileStore::open(folder)")]
    NoStore,
    /// Live keys were made under a pepper that was not given.
    #[error(
        "{keys} live keys were made under another pepper (the one given is {given}): give the \
         pepper that they were made under, here or as the previous one, or say \
         `.accept_lost_keys(true)` if they may be refused from now on"
    )]
    WrongPepper {
        /// How many.
        keys: usize,
        /// The id of the pepper that was given.
        given: crate::PepperId,
    },
    /// The master key's MAC was made under a pepper that was not given.
    #[error(
        "the stored master key was made under pepper {wanted}, which was not given: give that \
         pepper, or generate a new master key"
    )]
    MasterPepper {
        /// The id of the pepper that it was made under.
        wanted: crate::PepperId,
    },
    /// No environment is accepted.
    #[error("no environment is accepted, so that no key would work: name one or both")]
    NoEnvironment,
    /// The store holds more live keys than `max_keys`.
    #[error(
        "the store holds {found} live keys, but max_keys is {max}: raise max_keys to {found} or more"
    )]
    TooManyKeys {
        /// How many it holds.
        found: usize,
        /// How many are accepted.
        max: usize,
    },
    /// A record's id is not one that this crate makes.
    #[error("the store holds a record whose id is not 12 letters and digits: {id}")]
    InvalidId {
        /// The id.
        id: Name,
    },
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why keys were not changed as was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// A field cannot be used as it is.
    #[error("{field}: {problem}")]
    Invalid {
        /// Which field, as it is named in [`NewKey`](crate::NewKey).
        field: &'static str,
        /// What is wrong, and what would be right.
        problem: &'static str,
    },
    /// No key has this id.
    #[error("no key has this id")]
    NotFound,
    /// A key that has ended is changed no more, and a suspended one is not rotated.
    #[error(
        "this key is {status}: {}",
        match .status {
            KeyStatus::Suspended => "resume it first",
            _ => "that is final, so issue a new one",
        }
    )]
    NotActive {
        /// How it stands.
        status: KeyStatus,
    },
    /// The key was rotated before and lives only until its overlap ends.
    #[error("this key was already rotated: rotate its successor {successor} instead")]
    AlreadyRotated {
        /// The id of the key that follows it.
        successor: Name,
    },
    /// As many keys live as may be kept.
    #[error("{max} keys are alive, which is max_keys: revoke some, or raise max_keys")]
    Full {
        /// How many may be kept.
        max: usize,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Randomness,
    /// The store failed. In this process a key that was to be revoked or suspended is refused all
    /// the same, and nothing else has changed. What the store kept depends on how it failed: mostly
    /// nothing, so that a key works again after a restart unless it is revoked once more, or
    /// [`flush`](crate::Authenticator::flush) has written that before; but where an answer was lost
    /// it may hold the change, so that a key which was to be rotated may be found to end, and a new
    /// one listed of which nobody has the text. [`StoreError::Conflict`] is certain: nothing was
    /// kept, what the other process did is known by now, and the call may be repeated.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AuthError {
    /// The field at fault, where one is.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::AuthError;
    /// assert_eq!(AuthError::NotFound.field(), None);
    /// ```
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Invalid { field, .. } => Some(field),
            _ => None,
        }
    }
}

/// Why a credential was not accepted. It is for logs, metrics and the audit: the caller is told
/// the same for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// Not in the form of a key, or its checksum is wrong.
    #[error("the credential is not in the form of a key")]
    Malformed,
    /// In the form of a master key, and not the one.
    #[error("the master credential is wrong")]
    WrongMaster,
    /// No key has this id.
    #[error("no key has this id")]
    UnknownKey,
    /// The id is known and the secret is wrong.
    #[error("the secret is wrong")]
    WrongSecret,
    /// The key was made under a pepper that was not given.
    #[error("the key was made under a pepper that was not given")]
    UnknownPepper,
    /// The key was revoked.
    #[error("the key was revoked")]
    Revoked,
    /// The key is suspended.
    #[error("the key is suspended")]
    Suspended,
    /// The key may not be used from this address, or from one that is not known.
    #[error("the key may not be used from this address")]
    Address,
    /// The key is for an environment that is not accepted here.
    #[error("the key is for another environment")]
    Environment,
    /// The key's time is over.
    #[error("the key has expired")]
    Expired,
    /// The key's time is still to come.
    #[error("the key is not valid yet")]
    NotYetValid,
}

impl Rejected {
    /// A short word for logs and labels.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_auth::Rejected::WrongSecret.as_str(), "wrong_secret");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::WrongMaster => "wrong_master",
            Self::UnknownKey => "unknown_key",
            Self::WrongSecret => "wrong_secret",
            Self::UnknownPepper => "unknown_pepper",
            Self::Revoked => "revoked",
            Self::Suspended => "suspended",
            Self::Address => "address",
            Self::Environment => "environment",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
        }
    }
}
