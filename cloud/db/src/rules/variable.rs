//! Names of variables.

use minke_cloud_fleet::names;

use crate::error::{Error, Result};
use crate::model::Resource;
use crate::write::Changes;

/// Checks the name in a write of any variable.
pub(super) fn check(resource: &Resource, changes: &Changes) -> Result<()> {
    let Some(name) = changes.text("name") else { return Ok(()) };
    let checked = if resource.name.ends_with("_config_variable") {
        names::check_config_name(name)
    } else if resource.name.ends_with("_environment_variable") {
        names::check_environment_name(name)
    } else {
        return Ok(());
    };
    checked.map_err(|error| Error::invalid(error.to_string()))
}
