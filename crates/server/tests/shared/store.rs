//! A store that speaks S3: a real one, with its signatures and multipart uploads, over files.

use std::path::Path;

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use tokio::net::TcpListener;

/// Who may use it.
pub(crate) const ACCESS_KEY_ID: &str = "AKEXAMPLE";
pub(crate) const SECRET_KEY: &str = "a secret key";
pub(crate) const REGION: &str = "eu-central-1";

/// Serves a folder whose folders are the buckets, for ever.
pub(crate) async fn serve(listener: TcpListener, folder: &Path) {
    let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder).unwrap());
    service.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_KEY));
    let service = service.build();
    while let Ok((socket, _)) = listener.accept().await {
        let service = service.clone();
        tokio::spawn(async move {
            let connection = auto::Builder::new(TokioExecutor::new());
            // Clients that leave in the middle are no fault here.
            let _ = connection.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}
