//! Artifacts in a store that speaks S3: a real one, with its signatures and multipart uploads, over files.

use std::time::Instant;

use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};

use crate::{
    place::{PATIENCE, Place},
    store::{self, ACCESS_KEY_ID, REGION},
};

/// A store with a bucket.
struct Buckets {
    folder: TempDir,
    endpoint: String,
    // What runs on it ends with it.
    _runtime: Runtime,
}

impl Buckets {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("kept")).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let path = folder.path().to_owned();
        runtime.spawn(async move { store::serve(listener, &path).await });
        Self { folder, endpoint, _runtime: runtime }
    }

    fn place(&self, secret: &str) -> Place {
        Place::new().with([
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
        ])
    }

    /// Objects, by the end of their names.
    fn objects(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().join("kept")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path.strip_prefix(self.folder.path()).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        found.sort();
        found
    }
}

#[test]
fn artifacts_are_kept_in_a_bucket_served_from_it_and_let_go_of() {
    let buckets = Buckets::open();
    let place = buckets.place(store::SECRET_KEY);
    let store = ["--backend", "simulator", "--profile", "dev", "--artifact-store", "s3://kept/enclave/a"];
    let server = place.serve(&store);
    let content: Vec<u8> = (0..12_u32 << 20).map(|n| (n % 251) as u8).collect();
    let large = place.file("large.bin", &content);
    let program = place.file("leave.py", "# sim: write out/a.txt hello");
    let saved = place.path("saved");
    let left = place.run(&[
        "run",
        &program,
        "--url",
        &server.url,
        "--file",
        &format!("{large}:in/large.bin"),
        "--artifact",
        "*/*",
        "--save-to",
        saved.to_str().unwrap(),
    ]);
    assert!(left.code == 0 && left.stderr.contains("2 artifacts saved"), "{}", left.stderr);
    assert!(std::fs::read(saved.join("in/large.bin")).unwrap() == content);
    assert_eq!(std::fs::read(saved.join("out/a.txt")).unwrap(), b"hello");
    let objects = buckets.objects();
    let [first, second] = &objects[..] else { panic!("{objects:?}") };
    assert!(first.starts_with("kept/enclave/a/ses_") && first.ends_with("/0") && second.ends_with("/1"), "{objects:?}");
    drop(server);

    // With less room than that the next server lets go of it.
    let server = place.serve(&[&store[..], &["--artifact-quota", "1KiB"]].concat());
    let began = Instant::now();
    while !buckets.objects().is_empty() {
        assert!(began.elapsed() < PATIENCE, "{:?} are still there", buckets.objects());
    }
    drop(server);
}

#[test]
fn a_bucket_that_cannot_be_used_is_told_at_the_start() {
    let buckets = Buckets::open();
    let start = |place: &Place, bucket: &str| {
        let left = place.try_serve(&["--backend", "simulator", "--artifact-store", bucket]);
        left.err().expect("it does not start")
    };
    let wrong_key = start(&buckets.place("another key"), "s3://kept");
    assert!(wrong_key.stderr.contains("the bucket kept for artifacts cannot be used"), "{}", wrong_key.stderr);
    assert!(!wrong_key.stderr.contains("another key"));
    let absent = start(&buckets.place(store::SECRET_KEY), "s3://absent");
    assert!(absent.stderr.contains("the bucket absent for artifacts cannot be used"), "{}", absent.stderr);
    let unknown = start(&buckets.place(store::SECRET_KEY), "gs://kept");
    assert!(unknown.code == 2 && unknown.stderr.contains("gs:// is no store that is known"), "{}", unknown.stderr);
}
