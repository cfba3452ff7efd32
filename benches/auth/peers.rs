//! What one would use instead.

use std::collections::HashMap;
use std::sync::Arc;

use api_keys_simplified::{ApiKeyManagerV0, ExposeSecret, KeyStatus, SecureString};
use prefixed_api_key::{PakControllerOsSha256, PrefixedApiKey, PrefixedApiKeyController};
use spark_core::{Principal, User};

use crate::keys::{self, Keys};

pub(crate) const PREFIXED: &str = "prefixed-api-key: parse, HashMap, check_hash";
pub(crate) const SIMPLIFIED: &str = "api-keys-simplified verify (argon2)";
pub(crate) const SIMPLIFIED_CHECKSUM: &str = "api-keys-simplified verify";

/// prefixed-api-key reads and hashes; the table by the short token is what its users write.
pub(crate) struct Prefixed {
    controller: PakControllerOsSha256,
    known: HashMap<String, (String, Arc<User>)>,
}

impl Prefixed {
    /// So many keys of its own form.
    pub(crate) fn issued(count: u32) -> (Self, Keys) {
        let controller = PrefixedApiKeyController::configure()
            .prefix("spark".to_owned())
            .seam_defaults()
            .finalize()
            .unwrap();
        let mut known = HashMap::new();
        let mut texts = Vec::new();
        while known.len() < count as usize {
            let (key, hash) = controller.try_generate_key_and_hash().unwrap();
            let user = Arc::new(keys::user(known.len()));
            texts.push(key.to_string());
            known.insert(key.short_token().to_owned(), (hash, user));
        }
        (Self { controller, known }, Keys::new(texts))
    }

    pub(crate) fn verify(&self, text: &str) -> Option<Principal> {
        let key = PrefixedApiKey::from_string(text).ok()?;
        let (hash, user) = self.known.get(key.short_token())?;
        let right = self.controller.check_hash(&key, hash);
        right.then(|| Principal::User(Arc::clone(user)))
    }
}

/// A key has no id there, so there is one key and no table.
pub(crate) struct Simplified {
    manager: ApiKeyManagerV0,
    hash: String,
}

impl Simplified {
    pub(crate) fn issued() -> (Self, String) {
        let manager = ApiKeyManagerV0::init_default_config("spark_sk").unwrap();
        let environment = api_keys_simplified::Environment::production();
        let key = manager.generate(environment).unwrap();
        let hash = key.expose_hash().hash().clone();
        let text = key.key().expose_secret().to_owned();
        (Self { manager, hash }, text)
    }

    /// It takes a string that is wiped, so the caller makes one of what was sent.
    pub(crate) fn verify(&self, text: &str) -> bool {
        let key = SecureString::from(text.to_owned());
        let status = self.manager.verify(&key, &self.hash);
        matches!(status, Ok(KeyStatus::Valid))
    }
}
