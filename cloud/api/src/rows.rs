//! Rows for the endpoints: one query text in, rows out.

use minke_cloud_db::Caller;
use serde_json::Value;

use crate::api::Api;
use crate::error::ApiError;

impl Api {
    /// The rows that `caller` sees of an OData query that is the program's own. Values of others go
    /// into the text by [`crate::query::literal`] only.
    pub async fn rows(&self, caller: &Caller, query: &str) -> Result<Vec<Value>, ApiError> {
        let request = minke_common_odata::parse(query)
            .map_err(|error| ApiError::internal("reading its own query", error))?;
        match self.db.get(caller, &request).await? {
            Value::Array(rows) => Ok(rows),
            other => Err(ApiError::internal("reading rows", format!("{other} is no list of rows"))),
        }
    }

    /// The first of those rows.
    pub async fn row(&self, caller: &Caller, query: &str) -> Result<Option<Value>, ApiError> {
        Ok(self.rows(caller, query).await?.into_iter().next())
    }
}

/// A number field of a row.
pub fn number(row: &Value, field: &str) -> Option<i64> {
    row[field].as_i64()
}

/// A text field of a row; empty if it is not there.
pub fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or("")
}

/// The number of the row that an unexpanded navigation leads to.
pub fn target(row: &Value, navigation: &str) -> Option<i64> {
    row[navigation]["__id"].as_i64()
}
