//! The wrappers that loop, and what they make of short calls.

use super::*;

#[test]
fn gathered_write_of_more_slices_than_one_call_takes() {
    let file = tempfile::tempfile().unwrap();
    let pieces: Vec<Vec<u8>> = (0..3000u32).map(|i| i.to_be_bytes().to_vec()).collect();
    let mut slices: Vec<IoSlice> = pieces.iter().map(|p| IoSlice::new(p)).collect();
    write_gathered_at(&file, &mut slices, 5).unwrap();
    let mut back = vec![0; 12_005];
    assert_eq!(read_at(&file, &mut back, 0).unwrap(), 12_005);
    assert_eq!(back[5..], pieces.concat());
}

#[test]
fn a_rung_event_wakes_poll_once() {
    let event = EventFd::new().unwrap();
    let mut entry = [PollEntry::readable(&event)];
    assert_eq!(poll(&mut entry, Some(Duration::ZERO)).unwrap(), 0);
    event.ring();
    assert_eq!(poll(&mut entry, None).unwrap(), 1);
    event.clear();
    assert_eq!(poll(&mut entry, Some(Duration::ZERO)).unwrap(), 0);
}
