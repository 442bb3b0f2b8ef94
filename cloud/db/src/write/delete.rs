//! Removing rows.

use minke_cloud_fleet::Verb;
use minke_common_odata::Request;

use super::{CHUNK, addressed, writable};
use crate::caller::Caller;
use crate::error::Result;
use crate::generation;
use crate::model::Resource;
use crate::rules;
use crate::store::{Session, list};

/// Removes the rows that a request addresses; gives how many.
pub(crate) async fn delete(
    session: &mut Session,
    caller: &Caller,
    request: &Request,
) -> Result<u64> {
    let resource = writable(caller, &request.resource, Verb::Delete)?;
    let ids = addressed(session, caller, request, Verb::Delete).await?;
    delete_ids(session, caller, resource, &ids).await?;
    Ok(ids.len() as u64)
}

/// Removes rows by the rules of their resource, whoever may see them.
pub(crate) async fn delete_ids(
    session: &mut Session,
    caller: &Caller,
    resource: &'static Resource,
    ids: &[i64],
) -> Result<()> {
    Box::pin(async move {
        for chunk in ids.chunks(CHUNK) {
            generation::bump(session, resource, chunk).await?;
            let left = rules::before_delete(session, caller, resource, chunk).await?;
            let sql =
                format!("DELETE FROM \"{}\" WHERE \"id\" IN ({})", resource.name, list(chunk));
            session.run("removing rows", &sql, []).await?;
            rules::after_delete(session, caller, resource, left).await?;
        }
        Ok(())
    })
    .await
}
