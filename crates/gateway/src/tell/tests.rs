use super::*;

fn teller() -> (Teller, mpsc::Receiver<FromGateway>) {
    let (said, heard) = mpsc::channel(4096);
    (Teller::new(said), heard)
}

fn events(heard: &mut mpsc::Receiver<FromGateway>) -> Vec<GatewayEvent> {
    let mut events = Vec::new();
    while let Ok(said) = heard.try_recv() {
        match said {
            FromGateway::Event(event) => events.push(event),
            FromGateway::Ready | FromGateway::Usage { .. } | FromGateway::Done { .. } => {}
        }
    }
    events
}

fn refused() -> Refused {
    Refused::flat(Reason::NotAllowed, "no")
}

#[tokio::test(start_paused = true)]
async fn the_same_refusal_is_told_once_and_then_counted() {
    let (teller, mut heard) = teller();
    for _ in 0..1000 {
        teller.denied("connect tcp 1.2.3.4:5", &refused()).await;
    }
    teller.beat().await;
    let first = events(&mut heard);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].denial.as_ref().unwrap().attempted, "connect tcp 1.2.3.4:5");

    tokio::time::advance(std::time::Duration::from_secs(10)).await;
    teller.beat().await;
    let again = events(&mut heard);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].data["count"], 999);
    assert_eq!(again[0].denial, None);

    // The pause has doubled.
    teller.denied("connect tcp 1.2.3.4:5", &refused()).await;
    tokio::time::advance(std::time::Duration::from_secs(10)).await;
    teller.beat().await;
    assert_eq!(events(&mut heard), []);
    teller.last_words().await;
    assert_eq!(events(&mut heard)[0].data["count"], 1);
    teller.last_words().await;
    assert_eq!(events(&mut heard), []);
}

#[tokio::test]
async fn refusals_past_the_limit_are_only_counted() {
    let (teller, mut heard) = teller();
    for number in 0..repeats::MAX_DISTINCT + 500 {
        teller.denied(&format!("resolve {number}.test"), &refused()).await;
    }
    let told = events(&mut heard);
    assert_eq!(told.len(), repeats::MAX_DISTINCT + 1);
    assert_eq!(told.last().unwrap().data["attempted"], "more");
    teller.last_words().await;
    assert_eq!(events(&mut heard)[0].data["count"], 500);
}

#[tokio::test]
async fn what_the_runner_claims_is_told_as_its_claim_and_long_texts_are_cut() {
    let (teller, mut heard) = teller();
    teller.claimed(&"é".repeat(1000), &refused()).await;
    let told = events(&mut heard);
    assert_eq!(told[0].source, AuditSource::Runner);
    assert!(told[0].data["attempted"].as_str().unwrap().len() <= MAX_TEXT_BYTES);
}

#[tokio::test]
async fn usage_is_told_when_it_has_changed() {
    let (teller, mut heard) = teller();
    teller.beat().await;
    assert!(heard.try_recv().is_err());
    teller.count(7);
    teller.beat().await;
    teller.beat().await;
    assert_eq!(heard.try_recv().unwrap(), FromGateway::Usage { egress_bytes: 7 });
    assert!(heard.try_recv().is_err());
}
