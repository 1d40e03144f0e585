//! A connection's bytes, in the pieces that the network makes of them: the frames that come out are those that went in.
//!
//! Input: `u8` and so many bytes (above 199: 250 for each), again and again.

use super::{Taken, memory, mutate};
use ottla::budget::Budget;
use ottla::server::input::{Fault, Input, Pace};
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Longer frames are refused; above the reader's small buffer, so that both of its ways are taken.
const FRAME_BYTES_MAX: usize = 20_000;
const PACE: Pace = Pace {
    limit: Duration::from_secs(30),
    rate_min: 1,
};

/// Two ends of a connection without a port, of which there are not enough for so many runs.
fn pair() -> (UnixStream, TcpStream) {
    let (far, near) = UnixStream::pair().expect("a pair of sockets");
    (far, TcpStream::from(OwnedFd::from(near)))
}

/// What should come out: the whole frames, and whether what follows them is refused.
fn model(mut bytes: &[u8]) -> (Vec<&[u8]>, bool) {
    let mut frames = Vec::new();
    while let Some(length) = mutate::take::<4>(&mut bytes) {
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let Some((frame, rest)) = bytes.split_at_checked(length) else {
            return (frames, length > FRAME_BYTES_MAX);
        };
        if !(2..=FRAME_BYTES_MAX).contains(&length) {
            return (frames, true);
        }
        frames.push(frame);
        bytes = rest;
    }
    (frames, false)
}

/// Receives what is there, and compares each frame with what is expected next.
fn receive(
    reader: &mut Input,
    near: &TcpStream,
    expected: &mut impl Iterator<Item = Vec<u8>>,
) -> Result<(), Fault> {
    reader.fill(near)?;
    while let Some(key) = reader.next_key()? {
        let frame = reader.next_frame()?.expect("a frame with a key is whole");
        let expected = expected.next().expect("no frame too many");
        assert_eq!(frame[..], expected[..]);
        assert_eq!(frame[..2], key.to_be_bytes());
    }
    Ok(())
}

fn pieces(mut input: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let Some(len) = mutate::u8(&mut input) {
        let len = match usize::from(len) {
            len @ 200.. => (len - 199) * 250,
            len => len,
        };
        let (piece, rest) = input.split_at(len.min(input.len()));
        pieces.push(piece);
        input = rest;
    }
    pieces
}

pub fn run(input: &[u8]) -> Taken {
    let pieces = pieces(input);
    let whole = pieces.concat();
    let (frames, refused) = model(&whole);
    let mut expected = frames.iter().map(|frame| frame.to_vec());
    let (mut far, near) = pair();
    let budget = Budget::new(1 << 20);
    let mut reader = Input::new(budget.clone(), FRAME_BYTES_MAX, PACE);
    let ((), most) = memory::measured(|| {
        let mut received = Ok(());
        for piece in pieces {
            far.write_all(piece).expect("there is room for a piece");
            // As often as the small buffer is filled by the longest piece, and once more.
            for _ in 0..5 {
                received = received.and_then(|()| receive(&mut reader, &near, &mut expected));
            }
            if received.is_err() {
                break;
            }
        }
        far.shutdown(Shutdown::Write).expect("the far end ends");
        let ended = received.and_then(|()| receive(&mut reader, &near, &mut expected));
        match ended {
            Err(Fault::Ended) => assert!(!refused, "what is no frame must be refused"),
            Err(Fault::Refused(what)) => assert!(refused, "{what}"),
            other => panic!("neither ended nor refused: {other:?}"),
        }
    });
    assert!(expected.next().is_none(), "a frame is missing");
    drop(reader);
    assert_eq!(budget.used(), 0, "every charge is given back");
    Taken {
        most,
        from_budgets: 0,
    }
}

/// Frames of all sizes that matter, in one piece and in many.
pub fn seeds() -> Vec<Vec<u8>> {
    let framed = |len: usize| {
        let mut frame = (len as i32).to_be_bytes().to_vec();
        frame.extend((0..len).map(|at| at as u8));
        frame
    };
    let cut = |bytes: &[u8], by: usize| -> Vec<u8> {
        let pieces = bytes.chunks(by);
        pieces
            .flat_map(|piece| [&[piece.len() as u8][..], piece].concat())
            .collect()
    };
    vec![
        cut(&[framed(2), framed(40)].concat(), 60),
        cut(&framed(30), 7),
        [&[216u8][..], &framed(4093)[..], &[2, 0, 0]].concat(),
        cut(b"GET / HTTP/1.1\r\n", 9),
        cut(&(1i32 << 30).to_be_bytes(), 4),
    ]
}
