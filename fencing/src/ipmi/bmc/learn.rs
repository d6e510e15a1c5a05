//! Which sensors a BMC has, found out in the background, and their readings at a diagnosis.
//!
//! Why it exists: a BMC describes hundreds of sensors, one exchange each; a diagnosis has seconds. What it never does: find out
//! which there are while a fence waits.

use super::super::commands::{GetSdr, ReadSensor, ReserveSdr, SdrPiece};
use super::super::diagnosis::Lines;
use super::super::port::lock;
use super::super::sensors::{self, Sensor};
use super::{Bmc, Shared, answered};
use crate::power::DriverError;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// As the next data record's id: there is none (IPMI 2.0 §33.12).
const SDR_END: u16 = 0xffff;
/// Length of a data record's header, in bytes.
const SDR_HEADER: u8 = 5;
/// Bytes of a data record that are asked for at a time of a BMC that does not give it whole. Every BMC has room for so many.
const SDR_PIECE: u8 = 16;
/// How often the sensors of BMCs are looked for that are not known yet. Lower: a member that has just opened its sessions
/// has other work. Higher: a node that fails soon after that has no sensors in its diagnosis.
const LEARN_EVERY: Duration = Duration::from_secs(10);
/// Longest walk over one BMC's data records.
const LEARN_MAX: Duration = Duration::from_secs(120);
/// Longest wait for one answer of it: a fence may wait behind it in the queue.
const LEARN_WAIT: Duration = Duration::from_secs(1);
/// Pause after each record, for whoever waits for the BMC, and for its small processor.
const LEARN_PAUSE: Duration = Duration::from_millis(20);
/// Walks at the same time.
const LEARNING_IN_FLIGHT_MAX: usize = 8;
/// How long a whole list of sensors counts: hardware that was added shows at the latest then.
const LEARNED_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long a list counts that is not whole, or could not be read.
const LEARN_AGAIN_AFTER: Duration = Duration::from_secs(600);

/// What is known of a BMC's sensors.
pub(super) struct Learned {
    sensors: Arc<[Sensor]>,
    /// When it is read anew.
    until: Instant,
}

impl Bmc {
    /// Reads which sensors the BMC has, for later diagnoses, and says how many of them those will read. Takes seconds; each
    /// request takes its turn in the queue, so that a fence waits for one answer at most. Port does it once in a while by itself.
    ///
    /// # Errors
    /// [`DriverError`] if it ended early. What was found by then counts for a while.
    pub async fn learn_sensors(&self, deadline: Instant) -> Result<usize, DriverError> {
        let mut found = Vec::new();
        let walked = self.walk_records(&mut found, deadline).await;
        let counts_for = if walked.is_ok() { LEARNED_FOR } else { LEARN_AGAIN_AFTER };
        let sensors: Arc<[Sensor]> = sensors::choose(found).into();
        let count = sensors.len();
        let mut known = lock(&self.0.sensors);
        // A walk that failed at once teaches nothing.
        if walked.is_ok() || count > 0 || known.is_none() {
            *known = Some(Learned { sensors, until: Instant::now() + counts_for });
        }
        walked.map(|()| count)
    }

    async fn walk_records(&self, found: &mut Vec<Sensor>, deadline: Instant) -> Result<(), DriverError> {
        let (mut id, mut in_pieces) = (0, false);
        for _ in 0..sensors::RECORDS_MAX {
            let SdrPiece { next, data } = self.record(id, &mut in_pieces, deadline).await?;
            found.extend(sensors::described(&data));
            if next == SDR_END {
                break;
            }
            id = next;
            sleep(LEARN_PAUSE).await;
        }
        Ok(())
    }

    /// One data record: whole, or in pieces if the BMC does not give it whole.
    async fn record(
        &self,
        id: u16,
        in_pieces: &mut bool,
        deadline: Instant,
    ) -> Result<SdrPiece, DriverError> {
        let soon = || deadline.min(Instant::now() + LEARN_WAIT);
        if !*in_pieces {
            let whole = GetSdr { reservation: 0, id, offset: 0, count: 0xff };
            match answered(self.ask(whole, soon()).await)? {
                Ok(record) => return Ok(record),
                Err(why) => tracing::debug!(%why, "read a sensor's record in pieces"),
            }
            *in_pieces = true;
        }
        let reservation = self.ask(ReserveSdr, soon()).await?;
        let piece = |offset, count| GetSdr { reservation, id, offset, count };
        let mut record = self.ask(piece(0, SDR_HEADER), soon()).await?;
        let length = usize::from(SDR_HEADER) + record.data.get(4).copied().map_or(0, usize::from);
        while let Some(missing @ 1..) = length.checked_sub(record.data.len()) {
            let Ok(offset) = u8::try_from(record.data.len()) else { break };
            let count = u8::try_from(missing).map_or(SDR_PIECE, |missing| missing.min(SDR_PIECE));
            let SdrPiece { data, .. } = self.ask(piece(offset, count), soon()).await?;
            if data.is_empty() {
                break;
            }
            record.data.extend(data.into_iter().take(usize::from(count)));
        }
        Ok(record)
    }

    /// Reads the sensors that are known. Which there are is never found out here, where a fence waits.
    pub(super) async fn read_sensors(&self, lines: &mut Lines, deadline: Instant) -> Result<(), DriverError> {
        let known = lock(&self.0.sensors).as_ref().map(|learned| Arc::clone(&learned.sensors));
        let Some(known) = known else {
            lines.add("sensors: not read, for which there are was not read yet");
            return Ok(());
        };
        let mut readings = Vec::new();
        let mut ended = Ok(());
        for sensor in known.iter() {
            match answered(self.ask(ReadSensor { number: sensor.number }, deadline).await) {
                Ok(Ok(reading)) => readings.push((sensor.clone(), reading)),
                Ok(Err(why)) => tracing::debug!(%why, number = sensor.number, "read a sensor"),
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            }
        }
        sensors::lines(&readings, known.len()).into_iter().for_each(|line| lines.add(line));
        ended
    }
}

impl Shared {
    /// True if it has a session and nobody is using it, and its sensors are not known, or not any more.
    fn is_to_be_learned(&self) -> bool {
        let is_due = lock(&self.sensors).as_ref().is_none_or(|learned| learned.until <= Instant::now());
        is_due && self.idle(Duration::ZERO).is_some()
    }
}

/// Reads, for ever, the sensors of all BMCs that have a session and are not known yet; ends when the port is dropped.
pub(in super::super) async fn learn(bmcs: Arc<Mutex<Vec<Weak<Shared>>>>) {
    let mut ticks = tokio::time::interval(LEARN_EVERY);
    // The first tick comes at once.
    ticks.tick().await;
    let mut learning = JoinSet::new();
    loop {
        ticks.tick().await;
        let known = lock(&bmcs).clone();
        // One that is dropped meanwhile must not be held.
        for bmc in known.iter().filter_map(Weak::upgrade).filter(|bmc| bmc.is_to_be_learned()) {
            while learning.len() >= LEARNING_IN_FLIGHT_MAX {
                learning.join_next().await;
            }
            learning.spawn(async move {
                if let Err(error) = Bmc(bmc).learn_sensors(Instant::now() + LEARN_MAX).await {
                    tracing::debug!(%error, "read which sensors a BMC has");
                }
            });
        }
        while learning.join_next().await.is_some() {}
    }
}
