//! Keys of people: how long one lasts is said by somebody who has shown the password. Keys of fleets and
//! devices are made without it, too.

use crate::caller::Caller;
use crate::cell::Cell;
use crate::error::{Error, Result};
use crate::store::{Session, list};
use crate::write::Changes;

pub(super) async fn before_update(
    session: &mut Session,
    caller: &Caller,
    ids: &[i64],
    changes: &Changes,
) -> Result<()> {
    let Some(expiry) = changes.get("expiry_date") else { return Ok(()) };
    if caller.is_root() || caller.is_fresh {
        return Ok(());
    }
    let sooner = match expiry {
        Cell::Null => "",
        _ => "AND \"expiry_date\" < $1",
    };
    let rest = format!(
        "FROM \"api_key\" WHERE \"id\" IN ({}) AND \"expiry_date\" IS NOT NULL {sooner} AND \
         \"is_of__actor\" IN (SELECT \"actor\" FROM \"user\") LIMIT 1",
        list(ids)
    );
    let values = expiry.integer().map(Cell::Integer);
    match session.rows("finding keys that expire", "\"id\"", &rest, values).await?.is_empty() {
        true => Ok(()),
        false => Err(Error::Denied(
            "putting off the expiry_date of an api_key, without having logged in lately,"
                .to_owned(),
        )),
    }
}
