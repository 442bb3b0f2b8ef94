//! Who asks.

use std::sync::Arc;

use minke_cloud_fleet::{Permissions, Role, Verb};

/// On whose behalf an operation runs. Every row that is read or written passes its permissions.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Bound to `@__ACTOR_ID` in permission texts; `None` for anonymous callers.
    pub actor: Option<i64>,
    /// The rules that rows must pass.
    pub permissions: Arc<Permissions>,
    /// Whether somebody has shown the password lately, or a key that never ends: what outlives a session
    /// takes that.
    pub is_fresh: bool,
}

impl Caller {
    /// The server itself: sees and writes everything, also fields that are read-only to others.
    pub fn root() -> Self {
        Self::with_role(None, Role::Root)
    }

    /// Somebody without any credentials.
    pub fn anonymous() -> Self {
        Self::with_role(None, Role::Public)
    }

    /// An actor in one of the known roles.
    pub fn with_role(actor: Option<i64>, role: Role) -> Self {
        Self { actor, permissions: Permissions::shared(role), is_fresh: false }
    }

    /// The same caller, whose reads show only what they may do `verb` to.
    pub fn who_may(&self, verb: Verb) -> Self {
        Self { permissions: Arc::new(self.permissions.as_reads_of(verb)), ..self.clone() }
    }

    /// Whether this is the server itself.
    pub fn is_root(&self) -> bool {
        self.permissions.is_everything()
    }
}
