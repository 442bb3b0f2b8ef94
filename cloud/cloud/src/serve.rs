//! `minke-cloud serve`: all of a server in one process, on one listener.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use axum::Router;
use minke_cloud_api::ports::{Ports, TokenSigner};
use minke_cloud_api::{Api, Settings};
use minke_cloud_blobs::{DirBlobs, DirOptions};
use minke_cloud_logs::Logs;
use minke_cloud_registry::token::Signer;
use minke_cloud_registry::{Auth, Registry};
use minke_cloud_tunnel::{ConnectHandler, Hub, HubOptions, ServeOptions};
use tokio::net::TcpListener;

use crate::admin::{open_database, username_of};
use crate::arguments::Serve;
use crate::build_worker::BuildWorker;
use crate::data_directory::DataDirectory;
use crate::glue::{RegistryTokens, Tunnels, doorkeeper};
use crate::housekeeping::Housekeeping;
use crate::presence;
use crate::releases;
use crate::stop::Stop;

pub async fn run(options: Serve) -> Result<()> {
    refuse_missing(&options)?;
    let stop = Stop::listen()?;
    let data = DataDirectory::open(&options.storage.data)?;
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("listening on {}", options.listen))?;
    let address = listener.local_addr()?;
    let public_url = options.public_url.clone().unwrap_or_else(|| format!("http://{address}"));
    let server = Server::assemble(&options, &data, &public_url).await?;
    first_start(&server.api).await?;
    // Not worth a server that does not start: devices have more need of it.
    if let Err(error) = releases::end_interrupted(&server.api).await {
        tracing::error!("ending interrupted builds: {error:#}");
    }
    let housekeeping = Housekeeping {
        api: server.api.clone(),
        logs: server.logs.clone(),
        registry: server.registry.clone(),
    };
    let tasks = [
        tokio::spawn(presence::correct_later(server.api.clone(), server.hub.clone())),
        tokio::spawn(server.api.tell_devices()),
        tokio::spawn(housekeeping.run()),
        tokio::spawn(server.build_worker.pruning()),
    ];
    println!("Listening on http://{address}");
    if options.public_url.is_some() {
        println!("Clients and devices reach the server at {public_url}");
    }
    let connect = ConnectHandler::new(server.hub.clone(), doorkeeper(&server.api));
    let hub = server.hub.clone();
    let stopping = async move {
        stop.wait().await;
        hub.close();
    };
    minke_cloud_tunnel::serve(listener, server.router, connect, ServeOptions::default(), stopping)
        .await
        .context("serving")?;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    server.build_worker.stop().await;
    server.api.db().close().await;
    Ok(())
}

/// What `--help` announces and this version does not do is refused, not ignored.
fn refuse_missing(options: &Serve) -> Result<()> {
    if options.domain.is_some() {
        bail!(
            "--domain is not in this version: put a TLS proxy before the server and give its address as --public-url"
        );
    }
    if options.blobs.is_some() {
        bail!("--blobs is not in this version: images are kept in the data directory");
    }
    Ok(())
}

/// A server, ready to be served.
struct Server {
    api: Api,
    hub: Hub,
    logs: Logs,
    registry: Registry,
    build_worker: BuildWorker,
    router: Router,
}

impl Server {
    async fn assemble(options: &Serve, data: &DataDirectory, public_url: &str) -> Result<Server> {
        let settings = Settings::new(public_url, data.session_secret()?)?;
        let db = open_database(&options.storage).await?;
        let logs = Logs::open(&data.join("logs"), Default::default())?;
        let blobs = DirBlobs::open(data.join("blobs"), &DirOptions::default())?;
        let signer = Signer::open(&data.join("keys/registry"), &settings.public_url)?;
        let service = settings.registry_host();
        let auth = Auth::Token {
            verifier: signer.verifier(&service),
            realm: format!("{}/auth/v1/token", settings.public_url),
            service: service.clone(),
        };
        let registry = Registry::new(Arc::new(blobs), auth);
        let tunnels = Arc::new(Tunnels::default());
        let tokens: Arc<dyn TokenSigner> = Arc::new(RegistryTokens { signer, service });
        let notify = Arc::clone(&tunnels);
        let ports = Ports { notify, signer: Arc::clone(&tokens) };
        let api = Api::new(db, logs.clone(), settings, ports);
        let hub = Hub::new(doorkeeper(&api), HubOptions::default());
        tunnels.set(hub.clone());
        let build_worker = BuildWorker::start(options, data, &api, tokens).await?;
        let router = minke_cloud_api::router(api.clone())
            .merge(minke_cloud_registry::router(registry.clone()))
            .merge(build_worker.router.clone())
            .merge(hub.router());
        Ok(Server { api, hub, logs, registry, build_worker, router })
    }
}

/// Where nobody has an account yet, makes the administrator's.
async fn first_start(api: &Api) -> Result<()> {
    if api.db().has_users().await? {
        return Ok(());
    }
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let email = variable("MINKE_ADMIN_EMAIL").unwrap_or_else(|| "admin@localhost".to_owned());
    let given = variable("MINKE_ADMIN_PASSWORD");
    let password = given.clone().unwrap_or_else(|| minke_cloud_api::random_text(20));
    let username = username_of(&email);
    api.create_user(&username, &email, &password).await.context(
        "making the administrator's account from MINKE_ADMIN_EMAIL and MINKE_ADMIN_PASSWORD",
    )?;
    match given {
        Some(_) => println!("Made the account {email} with the password in MINKE_ADMIN_PASSWORD."),
        None => {
            println!("Made the account {email} with the password {password}");
            println!("It is shown this once; `minke-cloud admin reset-password` makes a new one.");
        }
    }
    Ok(())
}
