//! Lists of sessions: order, pages, filters, cursors.

use std::{collections::BTreeSet, sync::Arc};

use tokio::task::JoinSet;
use wire::{Phase, Session, SessionId};

use super::{
    Subject,
    support::{World, new},
};
use crate::{SessionFilter, StoreError, Tenant};

/// Every page of the list. The caller checks what comes.
async fn pages(tenant: &Arc<dyn Tenant>, mut filter: SessionFilter) -> Vec<Session> {
    let mut items = Vec::new();
    loop {
        let page = tenant.sessions(filter.clone()).await.expect("a page");
        assert!(page.items.len() <= filter.limit as usize, "a page keeps to its limit");
        assert!(page.next_cursor.is_none() || page.items.len() == filter.limit as usize, "only the last page is short");
        items.extend(page.items);
        match page.next_cursor {
            Some(next) => filter.cursor = Some(next),
            None => return items,
        }
    }
}

fn ids(sessions: &[Session]) -> Vec<SessionId> {
    sessions.iter().map(|session| session.id).collect()
}

pub async fn pages_have_no_duplicates_and_no_gaps_while_others_insert(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let mut there = BTreeSet::new();
    for _ in 0..100 {
        there.insert(world.created().await.id);
    }
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        let world = world.clone();
        writers.spawn(async move {
            for _ in 0..50 {
                world.created().await;
            }
        });
    }
    let mut rounds = 0;
    while rounds < 3 || !writers.is_empty() {
        let seen = ids(&pages(&world.tenant, SessionFilter { limit: 7, ..SessionFilter::default() }).await);
        assert!(seen.windows(2).all(|pair| pair[0] > pair[1]), "newest first, each once");
        let seen: BTreeSet<_> = seen.into_iter().collect();
        assert!(there.is_subset(&seen), "what was there before the first page is on one of them");
        rounds += 1;
        while let Some(done) = writers.try_join_next() {
            done.expect("no writer panics");
        }
    }
    let all = pages(&world.tenant, SessionFilter { limit: 300, ..SessionFilter::default() }).await;
    assert_eq!(all.len(), 300);
}

pub async fn phases_and_labels_filter_alone_and_together(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let mut all = Vec::new();
    for number in 0..24_u32 {
        let mut session = world.session();
        session.labels = [
            ("parity".to_owned(), (number % 2).to_string()),
            ("third".to_owned(), (number % 3).to_string()),
            ("same".to_owned(), "yes".to_owned()),
        ]
        .into();
        world.tenant.create_session(new(&session)).await.expect("a session is recorded");
        let phase = [Phase::Pending, Phase::Running, Phase::Killed, Phase::TornDown][number as usize % 4];
        all.push(if phase == Phase::Pending { session } else { world.moved(&session, phase).await });
    }
    all.reverse();
    let phases = [None, Some(Phase::Pending), Some(Phase::Running), Some(Phase::TornDown), Some(Phase::Failed)];
    let labels: [&[(&str, &str)]; 7] = [
        &[],
        &[("same", "yes")],
        &[("parity", "1")],
        &[("parity", "1"), ("third", "2")],
        &[("parity", "1"), ("parity", "0")],
        &[("parity", "third")],
        &[("absent", "yes")],
    ];
    let mut found = 0;
    for phase in phases {
        for wanted in labels {
            let fits = |session: &&Session| {
                phase.is_none_or(|phase| session.phase == phase)
                    && wanted.iter().all(|(key, value)| session.labels.get(*key).is_some_and(|has| has == value))
            };
            let expected: Vec<_> = all.iter().filter(fits).cloned().collect();
            for limit in [1, 3, 100] {
                let labels = wanted.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
                let filter = SessionFilter { cursor: None, limit, phase, labels };
                assert_eq!(pages(&world.tenant, filter).await, expected, "{phase:?} {wanted:?} by {limit}");
            }
            found += expected.len();
        }
    }
    assert!(found > 100, "the filters let something through");
}

pub async fn a_cursor_goes_on_with_another_filter(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let mut sessions = Vec::new();
    for number in 0..10 {
        let session = world.created().await;
        sessions.push(if number % 2 == 0 { world.moved(&session, Phase::Running).await } else { session });
    }
    sessions.reverse();
    let first = world.tenant.sessions(SessionFilter { limit: 4, ..SessionFilter::default() }).await.expect("a page");
    assert_eq!(first.items, sessions[..4]);
    let rest = SessionFilter { cursor: first.next_cursor, limit: 100, phase: Some(Phase::Running), labels: Vec::new() };
    let expected: Vec<_> = sessions[4..].iter().filter(|session| session.phase == Phase::Running).cloned().collect();
    assert_eq!(world.tenant.sessions(rest).await.expect("a page").items, expected);
}

pub async fn a_cursor_that_was_not_given_out_is_refused(subject: &dyn Subject) {
    let (world, other) = (World::new(subject).await, World::new(subject).await);
    for world in [&world, &other] {
        world.created().await;
        world.created().await;
    }
    let one = SessionFilter { limit: 1, ..SessionFilter::default() };
    let cursor = world.tenant.sessions(one.clone()).await.expect("a page").next_cursor.expect("there is a second page");
    let with = |cursor: &str| SessionFilter { cursor: Some(cursor.to_owned()), ..one.clone() };
    assert_eq!(world.tenant.sessions(with(&cursor)).await.expect("a page").items.len(), 1);

    let mut wrong: Vec<String> =
        ["", "A", "null", "../..", "%00", "\u{0}", "é", "' OR 1=1 --"].map(str::to_owned).into();
    wrong.push(world.created().await.id.to_string());
    for at in 0..cursor.len() {
        wrong.push(cursor[..at].to_owned());
        let mut changed = cursor.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        wrong.push(String::from_utf8(changed).expect("a cursor is ASCII"));
    }
    wrong.extend([
        format!("{cursor}A"),
        format!("{cursor}="),
        format!(" {cursor}"),
        cursor.repeat(2),
        "A".repeat(1 << 16),
    ]);
    for wrong in wrong {
        let page = world.tenant.sessions(with(&wrong)).await;
        assert!(matches!(page, Err(StoreError::BadCursor)), "{wrong:?} gave {page:?}");
    }
    let elsewhere = other.tenant.sessions(with(&cursor)).await;
    assert!(matches!(elsewhere, Err(StoreError::BadCursor)), "another org's cursor gave {elsewhere:?}");
}
