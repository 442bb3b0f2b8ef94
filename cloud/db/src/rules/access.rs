//! Who has direct access to which application: the closure of memberships, kept as rows of
//! `user__has_direct_access_to__application`, so that a permission is one indexed look-up.
//!
//! Access comes from the application's organization, from a membership of the application, and from
//! a team. Each write that can change it recomputes it for the users or applications concerned, one
//! such write at a time.

use super::Left;
use crate::cell::Cell;
use crate::error::Result;
use crate::model::Resource;
use crate::store::{Engine, Session, list};
use crate::write::Changes;

/// Every pair of user `u` and application `a` that should be there.
const CLOSURE: &str = "\
    SELECT m.\"user\" AS u, a.\"id\" AS a FROM \"organization_membership\" m \
    JOIN \"application\" a ON a.\"organization\" = m.\"is_member_of__organization\" \
    UNION SELECT \"user\", \"is_member_of__application\" FROM \"user_application_membership\" \
    UNION SELECT tm.\"user\", ta.\"grants_access_to__application\" FROM \"team_membership\" tm \
    JOIN \"team_application_access\" ta ON ta.\"team\" = tm.\"is_member_of__team\"";

/// Number of the lock that a write takes before it can change the closure; only ours.
const LOCK: i64 = 7_239_846_520;

/// Resources whose rows give access, and how their users are found.
const OF_USER: [&str; 3] =
    ["organization_membership", "user_application_membership", "team_membership"];

/// Links by which a row gives access to the application that they lead to.
const GIVING: [(&str, &str); 2] = [
    ("user_application_membership", "is_member_of__application"),
    ("team_application_access", "grants_access_to__application"),
];

/// Whether rows of `resource` give access to what this link of theirs leads to.
pub(crate) fn gives_access(resource: &Resource, link: &str) -> bool {
    GIVING.contains(&(resource.name.as_str(), link))
}

/// What a write does to rows, as far as access goes.
pub(super) enum Doing<'c> {
    /// Making one.
    Insert,
    /// Changing these columns.
    Update(&'c Changes),
    /// Removing them.
    Delete,
}

fn can_change(resource: &Resource, doing: &Doing<'_>) -> bool {
    match (resource.name.as_str(), doing) {
        ("team_application_access", _) => true,
        ("application", Doing::Insert) => true,
        ("application", Doing::Update(changes)) => changes.has("organization"),
        ("organization", Doing::Update(changes)) => changes.has("handle"),
        ("organization" | "team", Doing::Delete) => true,
        (name, _) => OF_USER.contains(&name),
    }
}

/// Before the first change: waits for other writes that can change who has access.
///
/// On PostgreSQL two transactions do not see each other's rows: a membership that one of them ends and
/// a fleet that the other makes would leave access behind. SQLite has one writer anyway.
pub(super) async fn lock(
    session: &mut Session,
    resource: &Resource,
    doing: Doing<'_>,
) -> Result<()> {
    if session.engine() != Engine::Postgres || !can_change(resource, &doing) {
        return Ok(());
    }
    let lock = format!("SELECT pg_advisory_xact_lock({LOCK})");
    session.run("waiting for other changes of access", &lock, []).await.map(drop)
}

async fn refresh(session: &mut Session, column: &str, short: &str, ids: &[i64]) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let ids = list(ids);
    let table = "\"user__has_direct_access_to__application\"";
    let gone = format!(
        "DELETE FROM {table} WHERE \"{column}\" IN ({ids}) AND NOT EXISTS (SELECT 1 FROM \
         ({CLOSURE}) c WHERE c.u = {table}.\"user\" AND c.a = \
         {table}.\"has_direct_access_to__application\")"
    );
    session.run("taking access away", &gone, []).await?;
    let new = format!(
        "INSERT INTO {table} (\"created_at\", \"modified_at\", \"user\", \
         \"has_direct_access_to__application\") SELECT CAST($1 AS BIGINT), CAST($1 AS BIGINT), \
         c.u, c.a FROM ({CLOSURE}) c WHERE c.{short} IN ({ids}) AND NOT EXISTS (SELECT 1 FROM \
         {table} d WHERE d.\"user\" = c.u AND d.\"has_direct_access_to__application\" = c.a)"
    );
    session.run("giving access", &new, [Cell::Integer(session.now)]).await.map(drop)
}

/// Recomputes who has access to these applications.
pub(super) async fn of_applications(session: &mut Session, ids: &[i64]) -> Result<()> {
    refresh(session, "has_direct_access_to__application", "a", ids).await
}

/// Recomputes what these users have access to.
pub(super) async fn of_users(session: &mut Session, ids: &[i64]) -> Result<()> {
    refresh(session, "user", "u", ids).await
}

/// The users that rows of a resource give access to.
async fn users(session: &mut Session, resource: &Resource, ids: &[i64]) -> Result<Vec<i64>> {
    let ids = list(ids);
    let rest = match resource.name.as_str() {
        name if OF_USER.contains(&name) => format!("FROM \"{name}\" WHERE \"id\" IN ({ids})"),
        "team_application_access" => format!(
            "FROM \"team_membership\" WHERE \"is_member_of__team\" IN (SELECT \"team\" FROM \
             \"team_application_access\" WHERE \"id\" IN ({ids}))"
        ),
        _ => return Ok(Vec::new()),
    };
    let rows = session.rows("finding users with access", "\"user\"", &rest, []).await?;
    Ok(rows.iter().filter_map(|row| row.first()?.as_i64()).collect())
}

pub(super) async fn after_write(
    session: &mut Session,
    resource: &Resource,
    changes: &Changes,
) -> Result<()> {
    if OF_USER.contains(&resource.name.as_str()) {
        let user: Vec<i64> = changes.integer("user").into_iter().collect();
        return of_users(session, &user).await;
    }
    match (resource.name.as_str(), changes.integer("grants_access_to__application")) {
        ("team_application_access", Some(application)) => {
            of_applications(session, &[application]).await
        }
        _ => Ok(()),
    }
}

/// Notes whom such rows were for before they change.
pub(super) async fn before_write(
    session: &mut Session,
    resource: &Resource,
    ids: &[i64],
) -> Result<()> {
    let users = users(session, resource, ids).await?;
    session.pending.users.extend(users);
    Ok(())
}

pub(super) async fn after_update(
    session: &mut Session,
    resource: &Resource,
    ids: &[i64],
) -> Result<()> {
    let mut all = std::mem::take(&mut session.pending.users);
    all.extend(users(session, resource, ids).await?);
    of_users(session, &all).await
}

pub(super) async fn before_delete(
    session: &mut Session,
    resource: &Resource,
    ids: &[i64],
) -> Result<Left> {
    Ok(Left { users: users(session, resource, ids).await?, ..Left::default() })
}

/// A team takes its memberships and its access with it.
pub(super) async fn before_team_delete(session: &mut Session, ids: &[i64]) -> Result<Left> {
    let rest = format!("FROM \"team_membership\" WHERE \"is_member_of__team\" IN ({})", list(ids));
    let rows = session.rows("finding members of teams", "\"user\"", &rest, []).await?;
    let users = rows.iter().filter_map(|row| row.first()?.as_i64()).collect();
    Ok(Left { users, ..Left::default() })
}

/// An organization takes its memberships and its teams with it, and what both gave.
pub(super) async fn before_organization_delete(session: &mut Session, ids: &[i64]) -> Result<Left> {
    let ids = list(ids);
    let rest = format!(
        "FROM (SELECT \"user\" FROM \"organization_membership\" WHERE \
         \"is_member_of__organization\" IN ({ids}) UNION SELECT m.\"user\" FROM \
         \"team_membership\" m JOIN \"team\" t ON t.\"id\" = m.\"is_member_of__team\" WHERE \
         t.\"belongs_to__organization\" IN ({ids})) u"
    );
    let rows = session.rows("finding members of organizations", "u.\"user\"", &rest, []).await?;
    let users = rows.iter().filter_map(|row| row.first()?.as_i64()).collect();
    Ok(Left { users, ..Left::default() })
}
