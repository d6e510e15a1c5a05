//! What a BMC's sensors are called and how their readings are meant (IPMI 2.0 §36, §43), and the lines that are made of them.
//!
//! Why it exists: a number and a raw byte tell nobody that a fan had stopped. Which sensors there are is read long before it
//! is needed, for reading hundreds of descriptions takes seconds; when a node has failed, only a few readings are taken.
//! What it never does: input or output, trusting a length, panicking on a record, deciding from what it read.

use super::codec::Fields;
use super::commands::SensorReading;
use super::diagnosis::state_words;
use ipmi_rs_core::storage::sdr::SensorType;
use std::fmt;

/// Data records of one BMC that are read. Large servers have some 300. Higher: a BMC that gives the same records again and
/// again is asked for longer.
pub const RECORDS_MAX: usize = 1024;
/// Sensors of one BMC that are read at a diagnosis. More: the power-off of a failed node waits for longer. Fewer: the one
/// that failed may not be among them.
pub const SENSORS_MAX: usize = 64;
/// Sensors of one kind among them, so that forty temperatures leave room for the power supplies.
const KIND_MAX: usize = 16;
/// Lines for sensors that are not as they should be. With four headlines and the summary they leave room for the event log.
const BAD_LINES_MAX: usize = 6;
/// Sensors that share one compact record (IPMI 2.0 table 43-2, a field of four bits).
const SHARED_MAX: u8 = 15;

/// The BMC itself as the owner of a sensor (IPMI 2.0 table 43-1): its slave address, its first logical unit.
const BMC_OWNER: [u8; 2] = [0x20, 0];
/// Record types (IPMI 2.0 §43).
const FULL: u8 = 0x01;
const COMPACT: u8 = 0x02;
/// Event/reading types (IPMI 2.0 table 42-1).
const THRESHOLD: u8 = 0x01;
const SPECIFIC: u8 = 0x6f;

/// Sensor types (IPMI 2.0 table 42-3).
const TEMPERATURE: u8 = 0x01;
const VOLTAGE: u8 = 0x02;
const CURRENT: u8 = 0x03;
const FAN: u8 = 0x04;
const PROCESSOR: u8 = 0x07;
const POWER_SUPPLY: u8 = 0x08;
const POWER_UNIT: u8 = 0x09;
const COOLING: u8 = 0x0a;
const MEMORY: u8 = 0x0c;
const DRIVE: u8 = 0x0d;
const CRITICAL_INTERRUPT: u8 = 0x13;
const WATCHDOG: u8 = 0x23;
const BATTERY: u8 = 0x29;

/// What is read first when a node has failed: what it lives on, then what kills it, then the rest that has states.
const KINDS: [u8; 13] = [
    POWER_SUPPLY,
    POWER_UNIT,
    TEMPERATURE,
    FAN,
    VOLTAGE,
    PROCESSOR,
    MEMORY,
    DRIVE,
    CRITICAL_INTERRUPT,
    WATCHDOG,
    COOLING,
    CURRENT,
    BATTERY,
];

/// Kinds of which the readings are told although nothing is wrong.
const HEADLINES: [(u8, &str); 4] =
    [(TEMPERATURE, "temperatures"), (VOLTAGE, "voltages"), (FAN, "fans"), (POWER_SUPPLY, "power supplies")];

/// A sensor as its data record describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensor {
    /// By which it is asked.
    pub number: u8,
    name: String,
    /// Sensor type (IPMI 2.0 table 42-3).
    kind: u8,
    /// Event/reading type (IPMI 2.0 table 42-1).
    states: u8,
    /// How its reading becomes a value, if it is one that we understand.
    scale: Option<Scale>,
}

/// From a raw reading to a value (IPMI 2.0 §36.3): `L((m x + b 10^k1) 10^k2)`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scale {
    format: Format,
    curve: Curve,
    m: i16,
    b: i16,
    k1: i8,
    k2: i8,
    unit: &'static str,
}

/// How a raw reading is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Unsigned,
    OnesComplement,
    TwosComplement,
}

/// `L`; those that need further questions are not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    Linear,
    Ln,
    Log10,
    Log2,
    Exp,
    Exp10,
    Exp2,
    Inverse,
    Square,
    Cube,
    SquareRoot,
    CubeRoot,
}

impl Curve {
    const ALL: [Curve; 12] = [
        Curve::Linear,
        Curve::Ln,
        Curve::Log10,
        Curve::Log2,
        Curve::Exp,
        Curve::Exp10,
        Curve::Exp2,
        Curve::Inverse,
        Curve::Square,
        Curve::Cube,
        Curve::SquareRoot,
        Curve::CubeRoot,
    ];

    fn of(self, x: f64) -> f64 {
        match self {
            Curve::Linear => x,
            Curve::Ln => x.ln(),
            Curve::Log10 => x.log10(),
            Curve::Log2 => x.log2(),
            Curve::Exp => x.exp(),
            Curve::Exp10 => 10f64.powf(x),
            Curve::Exp2 => x.exp2(),
            Curve::Inverse => x.recip(),
            Curve::Square => x * x,
            Curve::Cube => x * x * x,
            Curve::SquareRoot => x.sqrt(),
            Curve::CubeRoot => x.cbrt(),
        }
    }
}

impl Scale {
    /// From bytes 21 to 30 of a full record.
    fn read(bytes: [u8; 10]) -> Option<Scale> {
        let [units, base, _modifier, curve, m, m_high, b, b_high, _accuracy, exponents] = bytes;
        let format = match units >> 6 {
            0 => Format::Unsigned,
            1 => Format::OnesComplement,
            2 => Format::TwosComplement,
            _ => return None,
        };
        let curve = Curve::ALL.get(usize::from(curve & 0x7f)).copied()?;
        let unit = if units & 1 == 1 { "%" } else { unit(base) };
        let (m, b) = (ten_bits(m, m_high), ten_bits(b, b_high));
        Some(Scale { format, curve, m, b, k1: four_bits(exponents), k2: four_bits(exponents >> 4), unit })
    }

    fn value(&self, raw: u8) -> f64 {
        let x = match self.format {
            Format::Unsigned => f64::from(raw),
            // Of ones' complement, 0xff is a zero.
            Format::OnesComplement if raw & 0x80 != 0 => -f64::from(!raw),
            Format::OnesComplement => f64::from(raw),
            Format::TwosComplement => f64::from(raw.cast_signed()),
        };
        let inner = f64::from(self.m) * x + f64::from(self.b) * 10f64.powi(i32::from(self.k1));
        self.curve.of(inner * 10f64.powi(i32::from(self.k2)))
    }

    /// With as many digits as the scale has.
    fn told(&self, raw: u8) -> String {
        let digits = match self.curve {
            Curve::Linear => usize::from(self.k2.min(0).unsigned_abs()),
            Curve::Ln
            | Curve::Log10
            | Curve::Log2
            | Curve::Exp
            | Curve::Exp10
            | Curve::Exp2
            | Curve::Inverse
            | Curve::Square
            | Curve::Cube
            | Curve::SquareRoot
            | Curve::CubeRoot => 2,
        };
        let value = self.value(raw);
        let space = if self.unit.is_empty() { "" } else { " " };
        format!("{value:.*}{space}{}", digits.min(3), self.unit)
    }
}

/// A signed number of ten bits, whose upper two are bits 7 and 6 of another byte.
fn ten_bits(low: u8, high: u8) -> i16 {
    let value = i16::from(high >> 6) << 8 | i16::from(low);
    if value >= 0x200 { value - 0x400 } else { value }
}

/// A signed number of the lower four bits.
fn four_bits(byte: u8) -> i8 {
    (byte << 4).cast_signed() >> 4
}

/// Units that sensors of servers have (IPMI 2.0 table 43-15).
fn unit(base: u8) -> &'static str {
    match base {
        1 => "°C",
        2 => "°F",
        3 => "K",
        4 => "V",
        5 => "A",
        6 => "W",
        7 => "J",
        17 => "CFM",
        18 => "RPM",
        19 => "Hz",
        _ => "",
    }
}

/// The sensors that a data record describes: none if it describes something else, or a sensor that is not the BMC's own;
/// several if they share it. `record` is as the BMC gave it, header and all.
pub fn described(record: &[u8]) -> Vec<Sensor> {
    read(record).unwrap_or_default()
}

fn read(record: &[u8]) -> Option<Vec<Sensor>> {
    let mut fields = Fields::new("sensor record", record);
    let [_id_low, _id_high, _version, record_type, length] = fields.array().ok()?;
    let mut body = Fields::new("sensor record", fields.slice(usize::from(length)).ok()?);
    if !matches!(record_type, FULL | COMPACT) || body.array().ok()? != BMC_OWNER {
        return None;
    }
    let number = body.byte().ok()?;
    let [_entity, _instance, _init, _capabilities, kind, states] = body.array().ok()?;
    let _masks: [u8; 6] = body.array().ok()?;
    let (scale, shared) = if record_type == FULL {
        let scale = Scale::read(body.array().ok()?);
        // Analog characteristics, limits, hysteresis, OEM.
        let _rest: [u8; 17] = body.array().ok()?;
        (scale, 1)
    } else {
        let [_units, _base, _modifier, share, _more] = body.array().ok()?;
        let _rest: [u8; 6] = body.array().ok()?;
        (None, (share & 0x0f).clamp(1, SHARED_MAX))
    };
    let name = name(body).unwrap_or_else(|| format!("{number:#04x}"));
    let sensor = |at: u8| {
        let name = if shared == 1 { name.clone() } else { format!("{name} {}", at + 1) };
        Some(Sensor { number: number.checked_add(at)?, name, kind, states, scale })
    };
    Some((0..shared).filter_map(sensor).collect())
}

/// The id string (IPMI 2.0 §43.15), if it is in an encoding that has letters.
fn name(mut body: Fields<'_>) -> Option<String> {
    let form = body.byte().ok()?;
    let (bytes, length) = (body.rest(), usize::from(form & 0x1f));
    let text: String = match form >> 6 {
        3 => bytes.iter().copied().map(char::from).take(length).collect(),
        // Some BMCs count bytes here and some characters; it is the record's last field anyway.
        2 => bytes.chunks(3).flat_map(packed).collect(),
        _ => return None,
    };
    let text = text.replace(char::is_control, " ");
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Up to four characters of six bits, the lowest bits first.
fn packed(three: &[u8]) -> impl Iterator<Item = char> {
    let bits = three.iter().rev().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
    let count = three.len() * 8 / 6;
    (0..count).map(move |at| u8::try_from(bits >> (at * 6) & 0x3f).map_or(' ', |six| char::from(six + 0x20)))
}

/// The sensors that are worth reading when a node has failed, the most telling first.
pub fn choose(all: impl IntoIterator<Item = Sensor>) -> Vec<Sensor> {
    let place = |sensor: &Sensor| KINDS.iter().position(|kind| *kind == sensor.kind);
    let mut placed: Vec<(usize, Sensor)> =
        all.into_iter().filter_map(|sensor| Some((place(&sensor)?, sensor))).collect();
    // Stable: sensors of one kind stay in the BMC's order.
    placed.sort_by_key(|(place, _)| *place);
    let mut counts = [0; KINDS.len()];
    placed.retain(|(place, _)| {
        counts.get_mut(*place).is_some_and(|count| {
            *count += 1;
            *count <= KIND_MAX
        })
    });
    placed.into_iter().map(|(_, sensor)| sensor).take(SENSORS_MAX).collect()
}

/// What is told of one reading.
struct Told<'a> {
    sensor: &'a Sensor,
    text: String,
    is_bad: bool,
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.sensor.name, self.text)
    }
}

impl Sensor {
    /// What a reading says; nothing if there is none, or none of its states is asserted.
    fn told(&self, reading: &SensorReading) -> Option<Told<'_>> {
        let raw = reading.value?;
        let told = |text, is_bad| Some(Told { sensor: self, text, is_bad });
        if self.states == THRESHOLD {
            let value = self.scale.map_or_else(|| format!("raw {raw:#04x}"), |scale| scale.told(raw));
            return match limit(reading.states) {
                None => told(value, false),
                Some(limit) => told(format!("{value}, {limit}"), true),
            };
        }
        let asserted = (0..15u8).filter(|state| reading.states >> state & 1 == 1);
        let bad = bad_states(self.kind, self.states);
        let (wrong, right): (Vec<u8>, Vec<u8>) = asserted.partition(|state| bad >> state & 1 == 1);
        let words = |states: &[u8]| {
            let words = states.iter().map(|state| state_words(self.kind, self.states, *state));
            words.collect::<Vec<_>>().join(", ")
        };
        match (wrong.is_empty(), right.is_empty()) {
            (false, _) => told(words(&wrong), true),
            (true, false) => told(words(&right), false),
            (true, true) => None,
        }
    }
}

/// The worst limit that a reading has passed (IPMI 2.0 table 35-15).
fn limit(states: u16) -> Option<&'static str> {
    const LIMITS: [(u16, &str); 6] = [
        (5, "above its upper limit of what it survives"),
        (2, "below its lower limit of what it survives"),
        (4, "above its upper critical limit"),
        (1, "below its lower critical limit"),
        (3, "above its upper limit"),
        (0, "below its lower limit"),
    ];
    LIMITS.into_iter().find(|(bit, _)| states >> bit & 1 == 1).map(|(_, words)| words)
}

/// Which states of a discrete sensor are not as they should be, a bit each (IPMI 2.0 tables 42-2 and 42-3).
fn bad_states(kind: u8, states: u8) -> u16 {
    let but = |good: &[u16]| good.iter().fold(0x7fff, |bad, state| bad & !(1 << state));
    match (states, kind) {
        // Predictive failure, limit exceeded, performance lags: state 1.
        (0x04..=0x06, _) => 1 << 1,
        // Severity: OK, monitor and informational are no trouble.
        (0x07, _) => but(&[0, 7, 8]),
        // Redundancy: all but full.
        (0x0b, _) => but(&[0]),
        // Presence and terminator presence.
        (SPECIFIC, PROCESSOR) => but(&[7, 9]),
        // Presence; standing by.
        (SPECIFIC, POWER_SUPPLY) => but(&[0, 7]),
        // Off and being cycled.
        (SPECIFIC, POWER_UNIT) => but(&[0, 1]),
        // Presence, spare.
        (SPECIFIC, MEMORY) => but(&[6, 8]),
        // Presence, hot spare, consistency check.
        (SPECIFIC, DRIVE) => but(&[0, 3, 4]),
        (SPECIFIC, CRITICAL_INTERRUPT | WATCHDOG) => but(&[]),
        // Low and failed.
        (SPECIFIC, BATTERY) => 0b11,
        // On, off, present, absent, in transition: neither good nor bad.
        (_, _) => 0,
    }
}

/// Lines of a snapshot, for people: how many, what is wrong, and how the main ones are. `known` is how many there are to be
/// read; what is missing was not answered, or not in time.
pub fn lines(readings: &[(Sensor, SensorReading)], known: usize) -> Vec<String> {
    if known == 0 {
        return vec!["sensors: the BMC has described none of its own".to_owned()];
    }
    let told: Vec<Told<'_>> = readings.iter().filter_map(|(sensor, reading)| sensor.told(reading)).collect();
    let bad: Vec<&Told<'_>> = told.iter().filter(|told| told.is_bad).collect();
    let missing = known.saturating_sub(readings.len());
    let mut summary = format!("sensors: {} read", readings.len());
    if missing > 0 {
        summary.push_str(&format!(", {missing} not"));
    }
    summary.push_str(&match bad.len() {
        0 => "; none tells of trouble".to_owned(),
        count => format!("; {count} tell of trouble"),
    });
    let wrong = bad.iter().take(BAD_LINES_MAX);
    let wrong = wrong.map(|told| format!("{} sensor {told}", SensorType::from(told.sensor.kind)));
    let headline = |(kind, title): (u8, &str)| {
        let fine = told.iter().filter(|told| told.sensor.kind == kind && !told.is_bad);
        let fine: Vec<String> = fine.map(ToString::to_string).collect();
        (!fine.is_empty()).then(|| format!("{title}: {}", fine.join(", ")))
    };
    std::iter::once(summary).chain(wrong).chain(HEADLINES.into_iter().filter_map(headline)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A full record of the BMC's own sensor 0x10: kind, states, then bytes 21 to 30, then its name.
    fn full(kind: u8, states: u8, scale: [u8; 10], name: &[u8]) -> Vec<u8> {
        let mut body = vec![0x20, 0, 0x10, 3, 1, 0x7f, 0x40, kind, states, 0, 0, 0, 0, 0, 0];
        body.extend(scale);
        body.extend([0; 17]);
        body.extend(name);
        with_header(FULL, &body)
    }

    fn compact(kind: u8, share: u8, name: &[u8]) -> Vec<u8> {
        let mut body = vec![0x20, 0, 0x20, 10, 1, 0x67, 0x40, kind, SPECIFIC, 0, 0, 0, 0, 0, 0];
        body.extend([0xc0, 0, 0, share, 0, 0, 0, 0, 0, 0, 0]);
        body.extend(name);
        with_header(COMPACT, &body)
    }

    fn with_header(record_type: u8, body: &[u8]) -> Vec<u8> {
        [&[1, 0, 0x51, record_type, u8::try_from(body.len()).unwrap()][..], body].concat()
    }

    fn ascii(name: &str) -> Vec<u8> {
        [&[0xc0 | u8::try_from(name.len()).unwrap()][..], name.as_bytes()].concat()
    }

    fn reading(value: u8, states: u16) -> SensorReading {
        SensorReading { value: Some(value), states }
    }

    fn told(record: &[u8], value: u8, states: u16) -> String {
        let sensors = described(record);
        let reading = reading(value, states);
        sensors
            .first()
            .and_then(|sensor| sensor.told(&reading))
            .map_or_else(String::new, |told| told.to_string())
    }

    #[test]
    fn readings_become_values_as_the_formula_says() {
        let temperature = [0, 1, 0, 0, 1, 0, 0, 0, 0, 0];
        assert_eq!(told(&full(1, 1, temperature, &ascii("Cpu Temp")), 45, 0xc0), "Cpu Temp 45 °C");
        // Twos' complement.
        let signed = [0x80, 1, 0, 0, 1, 0, 0, 0, 0, 0];
        assert_eq!(told(&full(1, 1, signed, &ascii("Inlet")), 0xfb, 0xc0), "Inlet -5 °C");
        // 0.06 V a step: m = 6, k2 = -2.
        let volts = [0, 4, 0, 0, 6, 0, 0, 0, 0, 0xe0];
        assert_eq!(told(&full(2, 1, volts, &ascii("12V")), 201, 0xc0), "12V 12.06 V");
        // m = 60, b = -12 * 10^1 = -120.
        let fan = [0, 18, 0, 0, 60, 0, 0xf4, 0xc0, 0, 0x01];
        assert_eq!(told(&full(4, 1, fan, &ascii("Fan 1")), 100, 0xc0), "Fan 1 5880 RPM");
        let percent = [1, 0, 0, 0, 1, 0, 0, 0, 0, 0];
        assert_eq!(told(&full(4, 1, percent, &ascii("Duty")), 40, 0xc0), "Duty 40 %");
        // 1/x, and a curve that needs further questions.
        let inverse = [0, 0, 0, 7, 1, 0, 0, 0, 0, 0];
        assert_eq!(told(&full(4, 1, inverse, &ascii("X")), 4, 0xc0), "X 0.25");
        let own = [0, 1, 0, 0x70, 1, 0, 0, 0, 0, 0];
        assert_eq!(told(&full(1, 1, own, &ascii("X")), 0x2d, 0xc0), "X raw 0x2d");
    }

    #[test]
    fn what_is_not_as_it_should_be_is_told_first_and_the_worst_limit_counts() {
        let scale = [0, 1, 0, 0, 1, 0, 0, 0, 0, 0];
        let [hot]: [Sensor; 1] = described(&full(1, 1, scale, &ascii("Cpu Temp"))).try_into().unwrap();
        let psus = described(&compact(POWER_SUPPLY, 2, &ascii("Psu")));
        assert_eq!(psus.iter().map(|psu| psu.number).collect::<Vec<_>>(), [0x20, 0x21]);
        let [one, two]: [Sensor; 2] = psus.try_into().unwrap();
        let readings = [(hot, reading(102, 0x18)), (one, reading(0, 0x01)), (two, reading(0, 0x0b))];
        assert_eq!(
            lines(&readings, 4),
            [
                "sensors: 3 read, 1 not; 2 tell of trouble",
                "Temperature sensor Cpu Temp 102 °C, above its upper critical limit",
                "Power Supply sensor Psu 2 Power Supply Failure detected, Power Supply input lost (AC/DC)",
                "power supplies: Psu 1 Presence detected",
            ]
        );
        let unread = SensorReading { value: None, states: 0x3f };
        let [(hot, _), ..] = readings;
        assert_eq!(lines(&[(hot, unread)], 1), ["sensors: 1 read; none tells of trouble"]);
        assert_eq!(lines(&[], 0), ["sensors: the BMC has described none of its own"]);
    }

    #[test]
    fn names_are_read_in_both_encodings_and_others_have_a_number() {
        let scale = [0, 1, 0, 0, 1, 0, 0, 0, 0, 0];
        // "IPMI" packed (IPMI 2.0 §43.15).
        assert_eq!(told(&full(1, 1, scale, &[0x83, 0x29, 0xdc, 0xa6]), 1, 0), "IPMI 1 °C");
        assert_eq!(told(&full(1, 1, scale, &[0x02, 0x41, 0x42]), 1, 0), "0x10 1 °C");
        assert_eq!(told(&full(1, 1, scale, &[]), 1, 0), "0x10 1 °C");
    }

    #[test]
    fn what_is_not_the_bmcs_own_sensor_is_passed_over() {
        let scale = [0, 1, 0, 0, 1, 0, 0, 0, 0, 0];
        let mut satellite = full(1, 1, scale, &ascii("X"));
        satellite[5] = 0x22;
        assert_eq!(described(&satellite), []);
        let mut locator = full(1, 1, scale, &ascii("X"));
        locator[3] = 0x11;
        assert_eq!(described(&locator), []);
    }

    #[test]
    fn a_few_of_each_kind_are_chosen_power_first() {
        let scale = [0, 1, 0, 0, 1, 0, 0, 0, 0, 0];
        let temperatures = (0..40).flat_map(|_| described(&full(1, 1, scale, &ascii("Temp"))));
        let others =
            [described(&full(0xc5, 1, scale, &ascii("Oem"))), described(&compact(8, 1, &ascii("Psu")))];
        let chosen = choose(temperatures.chain(others.into_iter().flatten()));
        assert_eq!((chosen.len(), chosen[0].name.as_str(), chosen[1].name.as_str()), (17, "Psu", "Temp"));
        let all =
            KINDS.iter().flat_map(|kind| (0..20).flat_map(|_| described(&compact(*kind, 1, &ascii("S")))));
        assert_eq!(choose(all).len(), SENSORS_MAX);
    }

    proptest! {
        #[test]
        fn any_record_and_reading_are_read_or_passed_over(
            record in proptest::collection::vec(any::<u8>(), 0..80),
            owner in any::<bool>(),
            value in any::<Option<u8>>(),
            states in any::<u16>(),
        ) {
            let mut record = record;
            if owner && record.len() > 6 {
                record[3] = FULL + (record[3] & 1);
                record[4] = u8::try_from(record.len() - 5).unwrap();
                record[5..7].copy_from_slice(&BMC_OWNER);
            }
            let sensors = described(&record);
            prop_assert!(sensors.len() <= usize::from(SHARED_MAX));
            let readings: Vec<_> =
                sensors.into_iter().map(|sensor| (sensor, SensorReading { value, states })).collect();
            prop_assert!(lines(&readings, readings.len()).len() <= 1 + BAD_LINES_MAX + HEADLINES.len());
        }
    }
}
