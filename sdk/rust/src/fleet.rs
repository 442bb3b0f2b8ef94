//! Fleets (`application` in the API) and what provisions devices into them.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::odata::{Filter, Query};
use crate::{Client, Error};

/// A fleet.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// The fleet's id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// `organization/name`, in lower case.
    pub slug: String,
    /// Its uuid, 32 hex digits.
    pub uuid: String,
    /// The slug of the device type that it is for.
    pub device_type: String,
    /// The commit that its devices should run, if there is a release.
    pub commit: Option<String>,
    /// How many devices it has.
    pub devices: usize,
    /// How many of them are connected.
    pub online: usize,
}

/// An organization that owns fleets.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Organization {
    /// The organization's id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// The first part of its fleets' slugs.
    pub handle: String,
}

#[derive(Deserialize)]
struct Row {
    id: i64,
    app_name: String,
    slug: String,
    uuid: String,
    #[serde(default)]
    is_for__device_type: Vec<DeviceType>,
    #[serde(default)]
    should_be_running__release: Vec<Commit>,
    #[serde(default)]
    owns__device: Vec<Online>,
}

#[derive(Deserialize)]
struct DeviceType {
    slug: String,
}

#[derive(Deserialize)]
struct Commit {
    commit: String,
}

#[derive(Deserialize)]
struct Online {
    is_online: bool,
}

#[derive(Deserialize)]
struct Created {
    id: i64,
}

fn query() -> Query {
    Query::new("application")
        .select(["id", "app_name", "slug", "uuid"])
        .expand(Query::new("is_for__device_type").select(["slug"]))
        .expand(Query::new("should_be_running__release").select(["commit"]))
        .expand(Query::new("owns__device").select(["is_online"]))
        .order_by("app_name asc")
}

impl From<Row> for Fleet {
    fn from(row: Row) -> Fleet {
        Fleet {
            id: row.id,
            name: row.app_name,
            slug: row.slug,
            uuid: row.uuid,
            device_type: row
                .is_for__device_type
                .into_iter()
                .next()
                .map(|it| it.slug)
                .unwrap_or_default(),
            commit: row.should_be_running__release.into_iter().next().map(|it| it.commit),
            devices: row.owns__device.len(),
            online: row.owns__device.iter().filter(|device| device.is_online).count(),
        }
    }
}

impl Client {
    /// All fleets that the caller may use; not those of others that anybody may see.
    pub async fn fleets(&self) -> Result<Vec<Fleet>, Error> {
        let rows = self.own_fleets("list fleets", None).await?;
        Ok(rows.into_iter().map(Fleet::from).collect())
    }

    /// Public fleets of others are readable, too, but are no fleets of the caller's.
    async fn own_fleets(&self, what: &str, filter: Option<Filter>) -> Result<Vec<Row>, Error> {
        let mut conditions = vec![Filter::leads("is_directly_accessible_by__user")];
        conditions.extend(filter.clone());
        let rows: Vec<Row> = self.rows(what, &query().filter(Filter::And(conditions))).await?;
        if !rows.is_empty() || self.whoami().await?.actor_type == "user" {
            return Ok(rows);
        }
        // What the key of a fleet or a device may read is theirs; who has access to it they may not.
        let all = filter.into_iter().fold(query(), Query::filter);
        self.rows(what, &all).await
    }

    /// The caller's fleet with this slug, uuid, id or (if only one has it) name. A fleet of others
    /// that anybody may see is found by its slug only.
    pub async fn fleet(&self, name: &str) -> Result<Fleet, Error> {
        let slug = name.to_lowercase();
        let what = "find the fleet";
        let named = Filter::eq("app_name", name);
        let rows: Vec<Row> = if name.contains('/') {
            self.rows(what, &query().filter(Filter::eq("slug", slug.as_str()))).await?
        } else {
            let other = match name.parse::<i64>() {
                // A name may be a number, too.
                Ok(id) => Filter::eq("id", id),
                Err(_) => Filter::eq("uuid", slug.as_str()),
            };
            self.own_fleets(what, Some(named.or(other))).await?
        };
        let mut fleets: Vec<Fleet> = rows.into_iter().map(Fleet::from).collect();
        match fleets.len() {
            0 => Err(Error::NotFound { kind: "fleet", name: name.to_owned() }),
            1 => Ok(fleets.remove(0)),
            _ => Err(Error::Ambiguous {
                kind: "fleet",
                name: name.to_owned(),
                candidates: fleets
                    .iter()
                    .map(|fleet| fleet.slug.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }

    /// The organizations that the caller is a member of.
    pub async fn organizations(&self) -> Result<Vec<Organization>, Error> {
        let query =
            Query::new("organization").select(["id", "name", "handle"]).order_by("name asc");
        self.rows("list organizations", &query).await
    }

    /// Creates a fleet for devices of `device_type`; without an organization, in the only one.
    pub async fn create_fleet(
        &self,
        name: &str,
        device_type: &str,
        organization: Option<&str>,
    ) -> Result<Fleet, Error> {
        let organization = self.organization_for(organization).await?;
        let alias =
            Filter::any("device_type_alias", Filter::eq("is_referenced_by__alias", device_type));
        let types: Vec<Created> = self
            .rows("find the device type", &Query::new("device_type").select(["id"]).filter(alias))
            .await?;
        let device_type = types
            .first()
            .ok_or_else(|| Error::NotFound { kind: "device type", name: device_type.to_owned() })?;
        let body = json!({
            "app_name": name,
            "is_for__device_type": device_type.id,
            "organization": organization,
            "is_of__class": "fleet",
        });
        let created: Created = self.create("create the fleet", "application", &body).await?;
        self.fleet(&created.id.to_string()).await
    }

    async fn organization_for(&self, handle: Option<&str>) -> Result<i64, Error> {
        let all = self.organizations().await?;
        let fitting: Vec<&Organization> =
            all.iter().filter(|it| handle.is_none_or(|handle| it.handle == handle)).collect();
        match fitting.as_slice() {
            [only] => Ok(only.id),
            [] => Err(Error::NotFound {
                kind: "organization",
                name: handle.unwrap_or("(any)").to_owned(),
            }),
            several => Err(Error::Ambiguous {
                kind: "organization",
                name: handle.unwrap_or("(any)").to_owned(),
                candidates: several
                    .iter()
                    .map(|it| it.handle.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }

    /// The config.json with which a new device joins the fleet. It holds a fresh provisioning key.
    pub async fn provisioning_config(
        &self,
        fleet: &Fleet,
        device_type: Option<&str>,
        options: Map<String, Value>,
    ) -> Result<Value, Error> {
        let what = "make a device configuration";
        let mut body = options;
        body.insert("appId".to_owned(), json!(fleet.id));
        body.insert("deviceType".to_owned(), json!(device_type.unwrap_or(&fleet.device_type)));
        body.entry("network").or_insert_with(|| json!("ethernet"));
        let response = self.request(what, Method::POST, "download-config", Some(&body)).await?;
        self.json(what, response).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    /// The answer to a request for one fleet that the caller may read, but not who has access to it.
    fn answer(request: &str, actor_type: &str) -> Value {
        if request.contains("/actor/v1/whoami") {
            json!({ "id": 1, "actorType": actor_type, "actorTypeId": 7 })
        } else if request.contains("is_directly_accessible_by__user") {
            json!({ "d": [] })
        } else {
            json!({ "d": [{ "id": 7, "app_name": "weather", "slug": "ann/weather", "uuid": "a1" }] })
        }
    }

    async fn client(actor_type: &'static str) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let mut lines = String::new();
                while !lines.ends_with("\r\n\r\n") {
                    assert_ne!(stream.read_line(&mut lines).await.unwrap(), 0, "{lines}");
                }
                let body = answer(lines.lines().next().unwrap(), actor_type).to_string();
                let length = body.len();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n");
                let text = format!("{head}connection: close\r\n\r\n{body}");
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        });
        Client::new(&url).unwrap()
    }

    #[tokio::test]
    async fn the_key_of_a_fleet_or_a_device_finds_its_fleet() {
        for actor_type in ["application", "device"] {
            let client = client(actor_type).await;
            for name in ["weather", "a1", "7", "ann/weather"] {
                assert_eq!(client.fleet(name).await.unwrap().id, 7, "{actor_type} {name}");
            }
            assert_eq!(client.fleets().await.unwrap().len(), 1, "{actor_type}");
        }
    }

    #[tokio::test]
    async fn a_person_finds_the_fleets_of_strangers_by_their_slugs_only() {
        let client = client("user").await;
        for name in ["weather", "a1", "7"] {
            let found = client.fleet(name).await;
            assert!(matches!(found, Err(Error::NotFound { .. })), "{name}: {found:?}");
        }
        assert_eq!(client.fleet("ann/weather").await.unwrap().id, 7);
        assert_eq!(client.fleets().await.unwrap().len(), 0);
    }
}
