//! What a write brings with it: defaults, checks, and changes of other rows, in its transaction.
//!
//! One file a resource (or a family of like ones). A rule runs for every writer, the server itself
//! included; what only a client must not do is said by permissions and by the model's `readonly`.

mod access;
mod actor;
mod api_key;
mod application;
mod device;
mod image;
mod invite;
mod organization;
mod own_device;
mod ownership;
mod release;
mod service_install;
mod system_release;
mod user;
mod variable;

pub(crate) use access::gives_access;
pub(crate) use user::check as check_account;

use crate::caller::Caller;
use crate::error::Result;
use crate::model::Resource;
use crate::store::Session;
use crate::write::Changes;

/// What the removal of rows leaves to be done when they are gone.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Actors that nobody is any more.
    actors: Vec<i64>,
    /// Applications whose target release may be another one now.
    applications: Vec<i64>,
    /// Images that were in a release which is gone.
    images: Vec<i64>,
    /// Users whose access may be less now.
    users: Vec<i64>,
}

/// Before a row is made: fills in and checks `changes`.
pub(crate) async fn before_insert(
    session: &mut Session,
    caller: &Caller,
    resource: &'static Resource,
    changes: &mut Changes,
) -> Result<()> {
    access::lock(session, resource, access::Doing::Insert).await?;
    variable::check(resource, changes)?;
    match resource.name.as_str() {
        "application" => application::before_insert(session, caller, changes).await,
        "device" => device::before_insert(session, caller, changes).await,
        "image" => image::before_insert(changes),
        "release_image" => release::before_image(session, changes).await,
        "release" => release::before_insert(session, caller, changes).await,
        "organization" => organization::before_insert(changes),
        "organization_membership" => organization::before_membership(session, changes).await,
        "application_invite" | "organization_invite" => {
            invite::before_insert(session, caller, changes).await
        }
        "user" => actor::give(session, caller, changes).await,
        _ => Ok(()),
    }
}

/// After a row was made.
pub(crate) async fn after_insert(
    session: &mut Session,
    caller: &Caller,
    resource: &'static Resource,
    id: i64,
    changes: &Changes,
) -> Result<()> {
    match resource.name.as_str() {
        "application" => access::of_applications(session, &[id]).await,
        "device" => device::after_insert(session, id, changes).await,
        "release" => release::after_write(session, caller, &[id], changes).await,
        "release_image" => release::after_image(session, id, changes).await,
        "organization" => organization::after_insert(session, caller, id).await,
        _ => access::after_write(session, resource, changes).await,
    }
}

/// Before rows change: fills in and checks `changes`, which hold for each of them.
pub(crate) async fn before_update(
    session: &mut Session,
    caller: &Caller,
    resource: &'static Resource,
    ids: &[i64],
    changes: &mut Changes,
) -> Result<()> {
    access::lock(session, resource, access::Doing::Update(changes)).await?;
    variable::check(resource, changes)?;
    match resource.name.as_str() {
        "application" => application::before_update(session, caller, ids, changes).await,
        "api_key" => api_key::before_update(session, caller, ids, changes).await,
        "device" => {
            own_device::before_update(session, caller, ids, changes).await?;
            device::before_update(session, ids, changes).await
        }
        "user" => user::before_update(changes),
        "release" => {
            ownership::stays(session, resource, "belongs_to__application", ids, changes).await?;
            release::before_update(session, caller, ids, changes).await
        }
        "organization" => organization::before_update(changes),
        "service" => ownership::stays(session, resource, "application", ids, changes).await,
        _ => access::before_write(session, resource, ids).await,
    }
}

/// After rows changed.
pub(crate) async fn after_update(
    session: &mut Session,
    caller: &Caller,
    resource: &'static Resource,
    ids: &[i64],
    changes: &Changes,
) -> Result<()> {
    match resource.name.as_str() {
        "application" => application::after_update(session, caller, ids, changes).await,
        "device" => device::after_update(session, ids, changes).await,
        "release" => release::after_write(session, caller, ids, changes).await,
        "organization" => organization::after_update(session, ids, changes).await,
        "image" => ownership::of_images(session, ids, changes).await,
        "release_image" => ownership::of_places(session, ids).await,
        _ => access::after_update(session, resource, ids).await,
    }
}

/// Before rows go: removes what would keep them, and notes what is to be done after.
pub(crate) async fn before_delete(
    session: &mut Session,
    caller: &Caller,
    resource: &'static Resource,
    ids: &[i64],
) -> Result<Left> {
    access::lock(session, resource, access::Doing::Delete).await?;
    match resource.name.as_str() {
        "application" => application::before_delete(session, caller, ids).await,
        "device" | "user" => actor::of_rows(session, resource, ids).await,
        "release" => release::before_delete(session, ids).await,
        "team" => access::before_team_delete(session, ids).await,
        "organization" => access::before_organization_delete(session, ids).await,
        _ => access::before_delete(session, resource, ids).await,
    }
}

/// After rows went.
pub(crate) async fn after_delete(
    session: &mut Session,
    caller: &Caller,
    _resource: &'static Resource,
    left: Left,
) -> Result<()> {
    actor::remove(session, &left.actors).await?;
    access::of_users(session, &left.users).await?;
    image::remove_unused(session, caller, &left.images).await?;
    release::advance(session, caller, &left.applications).await
}
