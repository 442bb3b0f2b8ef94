//! All containers, by id and by name.
//!
//! Invariant: a name belongs to one container; it is taken before anything is made under it and given
//! back when that fails or the container is gone.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use super::container::Container;
use crate::error::{Error, Result};

#[derive(Default)]
pub(crate) struct Registry {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    by_id: BTreeMap<String, Arc<Container>>,
    /// Name (without slash) to id.
    names: HashMap<String, String>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes a name for a container.
    pub(crate) fn take_name(&self, name: &str, id: &str) -> Result<()> {
        let mut state = self.lock();
        match state.names.get(name) {
            Some(owner) if owner == id => Err(Error::Invalid(
                "Renaming a container with the same name as its current name".to_owned(),
            )),
            Some(owner) => Err(Error::Conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". \
                 You have to remove (or rename) that container to be able to reuse that name."
            ))),
            None => {
                state.names.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    /// Gives a name back.
    pub(crate) fn release_name(&self, name: &str, id: &str) {
        let mut state = self.lock();
        if state.names.get(name).is_some_and(|owner| owner == id) {
            state.names.remove(name);
        }
    }

    /// Adds a container whose name is taken.
    pub(crate) fn add(&self, container: Arc<Container>) {
        self.lock().by_id.insert(container.id.clone(), container);
    }

    /// Takes a container out, with its names.
    pub(crate) fn remove(&self, id: &str) {
        let mut state = self.lock();
        state.by_id.remove(id);
        state.names.retain(|_, owner| owner != id);
    }

    /// Every container, newest first.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> = self.lock().by_id.values().cloned().collect();
        all.sort_by_key(|container| std::cmp::Reverse(container.lock().config.created_at));
        all
    }

    /// A container by id, name (with or without slash) or unique beginning of an id.
    pub(crate) fn find(&self, text: &str) -> Result<Arc<Container>> {
        let state = self.lock();
        if let Some(container) = state.by_id.get(text) {
            return Ok(container.clone());
        }
        let name = text.strip_prefix('/').unwrap_or(text);
        if let Some(container) = state.names.get(name).and_then(|id| state.by_id.get(id)) {
            return Ok(container.clone());
        }
        let mut matches = state
            .by_id
            .range(text.to_owned()..)
            .take_while(|(id, _)| id.starts_with(text) && !text.is_empty());
        match (matches.next(), matches.next()) {
            (Some((_, container)), None) => Ok(container.clone()),
            (Some(_), Some(_)) => {
                Err(Error::Invalid(format!("multiple IDs found with provided prefix: {text}")))
            }
            (None, _) => {
                let shown: String = text.chars().take(256).collect();
                Err(Error::NotFound(format!("No such container: {shown}")))
            }
        }
    }

    /// The container that an exec belongs to.
    pub(crate) fn of_exec(&self, exec: &str) -> Result<Arc<Container>> {
        let all = self.lock().by_id.values().cloned().collect::<Vec<_>>();
        all.into_iter()
            .find(|container| container.lock().execs.contains_key(exec))
            .ok_or_else(|| Error::NotFound(format!("No such exec instance: {exec}")))
    }
}
