use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::core::nats_words::Word;

/// Tags are rooms; keeps what it is told of the line.
struct Told(Rc<RefCell<Vec<bool>>>);

impl Ear for Told {
    fn subject(&self, tag: u64) -> String {
        format!("room.{tag}")
    }

    fn heard(&self, _: u32, _: u64, _: &Heard<'_>) {}

    fn changed(&self, _: u32, online: bool) {
        self.0.borrow_mut().push(online);
    }
}

fn lines(server: &str, told: &Rc<RefCell<Vec<bool>>>) -> Lines {
    let target = Target {
        url: server.split(',').map(|server| format!("nats://{server}")).collect::<Vec<_>>().join(","),
        credentials: None,
    };
    let ear = Box::new(Told(told.clone()));
    Lines::new(&target, "test", Lease::until(u64::MAX), ear).unwrap()
}

/// Lines of one user each.
fn wanted(lines: u32) -> Vec<Wanted> {
    (0..lines).map(|line| Wanted { line, tags: vec![u64::from(line)], users: 1 }).collect()
}

/// Runs a test on a thread like a worker's, with lines to a server that hangs up on so many connections first, the number of
/// connections that it was asked for so far, and what is told of the lines.
fn with_server<T: Future<Output = ()>>(
    hangs_up_on: u32,
    users_per_second: f64,
    test: impl FnOnce(Lines, Rc<Cell<u32>>, Rc<RefCell<Vec<bool>>>) -> T,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (dialled, told) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
        let lines = lines(&listener.local_addr().unwrap().to_string(), &told);
        lines.hub.limiter.borrow_mut().set_rate(users_per_second);
        tokio::task::spawn_local(listen(listener, hangs_up_on, dialled.clone()));
        test(lines, dialled, told).await;
    });
}

async fn listen(listener: TcpListener, hangs_up_on: u32, dialled: Rc<Cell<u32>>) {
    while let Ok((socket, _)) = listener.accept().await {
        dialled.set(dialled.get() + 1);
        if dialled.get() > hangs_up_on {
            tokio::task::spawn_local(serve(socket));
        }
    }
}

/// As much of NATS as lines need.
async fn serve(mut socket: TcpStream) {
    socket.write_all(b"INFO {}\r\n").await.unwrap();
    let (reader, mut writer) = socket.split();
    let mut words = BufReader::new(reader).lines();
    while let Ok(Some(word)) = words.next_line().await {
        if word == "PING" && writer.write_all(b"PONG\r\n").await.is_err() {
            return;
        }
    }
}

async fn until(what: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.expect("it comes to that");
}

#[test]
fn who_cannot_connect_at_first_is_waited_for() {
    with_server(3, 500.0, async |lines, dialled, told| {
        assert_eq!(lines.settle(wanted(3), 500.0).await, Ok(()));
        assert_eq!((told.borrow().as_slice(), lines.connected(), dialled.get()), (&[true; 3][..], 3, 6));
        // Who stays is online at once, with whoever comes.
        assert_eq!(lines.settle(wanted(5), 500.0).await, Ok(()));
        assert_eq!((told.borrow().len(), lines.connected(), dialled.get()), (8, 5, 8));
    });
}

/// One in so many seconds.
const EACH: Duration = Duration::from_secs(1_000);

#[test]
fn users_come_online_no_faster_than_they_may() {
    with_server(0, 1.0 / EACH.as_secs_f64(), async |lines, dialled, _| {
        let hub = lines.hub.clone();
        tokio::select! {
            settled = lines.settle(wanted(3), 1.0 / EACH.as_secs_f64()) => panic!("{settled:?}"),
            () = until(|| dialled.get() > 0 && hub.limiter.borrow().next() > EACH + EACH / 2) => {}
        }
        // The second has a turn, a thousand seconds on, and the third has asked for none yet.
        assert_eq!((dialled.get(), hub.limiter.borrow().next() < EACH * 3), (1, true));
    });
}

#[test]
fn connections_that_all_break_at_once_are_opened_again_no_faster_than_users_may_come_online() {
    with_server(u32::MAX, 1.0 / EACH.as_secs_f64(), async |lines, dialled, _| {
        wanted(10).into_iter().for_each(|wanted| lines.bring(wanted));
        until(|| dialled.get() > 10 && lines.hub.limiter.borrow().next() > EACH * 9 + EACH / 2).await;
        // Each waits for a turn of its own; one of them had its turn at once.
        assert_eq!(dialled.get(), 11);
    });
}

#[test]
fn a_line_that_is_down_takes_no_message_and_says_since_when() {
    with_server(0, 500.0, async |lines, _, told| {
        lines.settle(wanted(1), 500.0).await.unwrap();
        let publish = || lines.publish(0, "chat.x", None, ("X-Request-ID", "r"), b"{}");
        assert_eq!(publish(), Ok(()));
        let before_ns = boottime_ns();
        lines.lines.borrow()[&0].shared.breaks(&lines.hub);
        let NotTaken { since_ns } = publish().unwrap_err();
        assert!((before_ns..=boottime_ns()).contains(&since_ns), "{since_ns}");
        // However often it is tried in vain.
        lines.lines.borrow()[&0].shared.breaks(&lines.hub);
        assert_eq!((publish(), told.borrow().as_slice()), (Err(NotTaken { since_ns }), &[true, false][..]));
        assert!(lines.publish(1, "chat.x", None, ("X-Request-ID", "r"), b"{}").is_err(), "nobody's");
    });
}

#[test]
fn a_server_that_does_not_read_shows_as_a_write_that_is_blocked() {
    const AT_LEAST_NS: u64 = 20_000_000;
    with_server(0, 500.0, async |lines, _, _| {
        let shared = Rc::new(Shared::new(0, Vec::new(), 1));
        let task = tokio::task::spawn_local(std::future::pending());
        lines.lines.borrow_mut().insert(0, Line { shared: shared.clone(), task });
        let (near, mut far) = tokio::io::duplex(16);
        let blocked = async {
            shared.out.borrow_mut().extend_from_slice(&[b'x'; 64]);
            shared.wakes.notify_one();
            until(|| shared.writes_since_ns.get().is_some()).await;
            tokio::time::sleep(Duration::from_nanos(AT_LEAST_NS)).await;
            // While it is, and again when it was.
            assert!(lines.take_write_blocked_ns(boottime_ns()) >= AT_LEAST_NS);
            far.read_exact(&mut [0; 64]).await.unwrap();
            until(|| shared.writes_since_ns.get().is_none()).await;
            assert!(lines.take_write_blocked_ns(boottime_ns()) >= AT_LEAST_NS);
            assert_eq!(lines.take_write_blocked_ns(boottime_ns()), 0);
        };
        tokio::select! {
            why = connection::write(near, &lines.hub, &shared) => panic!("{why}"),
            () = blocked => {}
        }
    });
}

#[test]
fn a_line_that_is_asked_for_more_before_it_is_online_is_so_with_all_of_it_only() {
    let told = Rc::new(RefCell::new(Vec::new()));
    let lines = lines("127.0.0.1:4222", &told);
    let shared = Shared::new(1, vec![7], 1);
    shared.state.set(State::Subscribing);
    let (hub, written) = (&lines.hub, || shared.out.borrow_mut().split());
    let pong = || connection::on_word(Word::Pong, hub, &shared).unwrap();
    shared.subscribe(hub, 0);
    assert_eq!(&written()[..], b"SUB room.7 1\r\nPING\r\n");
    // Dealt anew while the server has yet to answer, with more and then with the same.
    shared.extend(hub, vec![7, 8, 9]);
    shared.extend(hub, vec![7, 8, 9]);
    assert_eq!(&written()[..], b"SUB room.8 2\r\nSUB room.9 3\r\nPING\r\n");
    pong();
    assert_eq!((shared.state.get(), told.borrow().as_slice()), (State::Subscribing, &[][..]));
    pong();
    assert_eq!((shared.state.get(), told.borrow().as_slice()), (State::Online, &[true][..]));
    // Online, it is asked for more, and then for more again.
    shared.extend(hub, vec![7, 8, 9, 10]);
    shared.extend(hub, vec![7, 8, 9, 10, 11]);
    assert_eq!(&written()[..], b"SUB room.10 4\r\nPING\r\nSUB room.11 5\r\nPING\r\n");
    pong();
    assert_eq!(shared.state.get(), State::Subscribing);
    pong();
    assert_eq!((shared.state.get(), told.borrow().as_slice()), (State::Online, &[true, true][..]));
}

#[test]
fn a_line_whose_server_is_gone_comes_online_with_another() {
    with_server(0, 500.0, async |_, _, told| {
        // Of three servers one is there.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap();
        let gone = [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let [first, second] = gone.map(|listener| listener.local_addr().unwrap());
        tokio::task::spawn_local(listen(listener, 0, Rc::default()));
        let lines = lines(&format!("{first},{there},{second}"), &told);
        assert_eq!(lines.settle(wanted(12), 500.0).await, Ok(()));
        assert_eq!((lines.connected(), told.borrow().as_slice()), (12, &[true; 12][..]));
    });
}

#[test]
fn lines_of_every_agent_are_spread_over_the_servers() {
    with_server(0, 500.0, async |_, _, told| {
        let (one, other) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let lines = lines(&format!("{},{}", one.local_addr().unwrap(), other.local_addr().unwrap()), &told);
        let dialled = [one, other].map(|listener| {
            let dialled = Rc::new(Cell::new(0));
            tokio::task::spawn_local(listen(listener, 0, dialled.clone()));
            dialled
        });
        // The second agent of two: every other user.
        let wanted: Vec<Wanted> = (0..100).map(|nth| Wanted { line: 2 * nth + 1, tags: vec![1], users: 1 }).collect();
        assert_eq!(lines.settle(wanted, 5_000.0).await, Ok(()));
        let dialled = dialled.map(|dialled| dialled.get());
        assert!(dialled[0] + dialled[1] == 100 && dialled.iter().all(|&lines| lines > 30), "{dialled:?}");
    });
}

#[test]
fn a_line_that_may_not_have_all_its_subscriptions_is_not_online_and_says_why() {
    let told = Rc::new(RefCell::new(Vec::new()));
    let lines = lines("127.0.0.1:4222", &told);
    let shared = Shared::new(1, vec![7, 8], 1);
    shared.state.set(State::Subscribing);
    shared.subscribe(&lines.hub, 0);
    let word = |word| connection::on_word(word, &lines.hub, &shared);
    // The server keeps the connection, and would answer the ping.
    assert_eq!(word(Word::Error("maximum subscriptions exceeded")), Err("maximum subscriptions exceeded".to_owned()));
    // Its task ends the connection with these words.
    shared.breaks(&lines.hub);
    assert_eq!((word(Word::Pong), shared.state.get(), told.borrow().as_slice()), (Ok(()), State::Down, &[][..]));
    // A subject that is denied is another matter, which ends all; so is what is said once it is online.
    shared.state.set(State::Online);
    assert_eq!(word(Word::Error("something else")), Ok(()));
    assert_eq!(lines.take_reported(), ["a user's connection: something else"]);
}
