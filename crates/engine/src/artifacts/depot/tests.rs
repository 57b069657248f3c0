//! The same of every place.

use futures::TryStreamExt as _;
use object_store::memory::InMemory;
use rand::Rng as _;

use super::*;

const PART: usize = 5 * 1024 * 1024;

async fn each(check: impl AsyncFn(Depot)) {
    let folder = tempfile::tempdir().unwrap();
    check(Depot::open(folder.path().join("depot")).unwrap()).await;
    check(Depot::bucket(Arc::new(InMemory::new()), "a/prefix").await.unwrap()).await;
    check(Depot::bucket(Arc::new(InMemory::new()), "").await.unwrap()).await;
}

fn session(n: u128) -> SessionId {
    format!("ses_{}", uuid::Builder::from_random_bytes(n.to_be_bytes()).into_uuid()).parse().unwrap()
}

async fn kept(depot: &Depot, session: SessionId, number: u32, content: &[u8], piece: usize) {
    let mut keeping = depot.keep(session, number).await.unwrap();
    for piece in content.chunks(piece) {
        keeping.write(piece).await.unwrap();
    }
    keeping.done().await.unwrap();
}

async fn read(depot: &Depot, session: SessionId, number: u32, range: Range<u64>) -> io::Result<Vec<u8>> {
    let pieces: Vec<_> = depot.read(session, number, range).await?.try_collect().await?;
    Ok(pieces.concat())
}

#[tokio::test]
async fn what_is_kept_is_read_whole_and_in_parts_and_removed_with_its_session() {
    each(async |depot| {
        let (one, other) = (session(1), session(2));
        let mut large = vec![0; 2 * PART + 3];
        rand::rng().fill_bytes(&mut large);
        kept(&depot, one, 0, &large, 300_000).await;
        kept(&depot, one, 1, b"", 1).await;
        kept(&depot, one, 2, &large[..PART], PART).await;
        kept(&depot, other, 0, b"other", 2).await;
        let size = large.len() as u64;
        assert!(read(&depot, one, 0, 0..size).await.unwrap() == large);
        assert_eq!(read(&depot, one, 0, size - 3..size).await.unwrap(), large[large.len() - 3..]);
        assert_eq!(read(&depot, one, 1, 0..0).await.unwrap(), b"");
        assert!(read(&depot, one, 2, 0..PART as u64).await.unwrap() == large[..PART]);
        read(&depot, one, 3, 0..1).await.unwrap_err();
        depot.remove(one).await.unwrap();
        depot.remove(one).await.unwrap();
        read(&depot, one, 0, 0..1).await.unwrap_err();
        assert_eq!(read(&depot, other, 0, 1..4).await.unwrap(), b"the");
        assert_eq!(depot.sessions(Duration::ZERO).await.unwrap(), [other]);
        assert_eq!(depot.sessions(Duration::from_mins(1)).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn what_is_given_up_is_not_there() {
    each(async |depot| {
        for bytes in [3, 2 * PART] {
            let mut keeping = depot.keep(session(1), 0).await.unwrap();
            keeping.write(&vec![0; bytes]).await.unwrap();
            drop(keeping);
            read(&depot, session(1), 0, 0..1).await.unwrap_err();
        }
    })
    .await;
}
