//! Tables as firmware writes them, and as it should not.

use std::collections::BTreeMap;

use guest_firmware::acpi::{Error, Memory, Name, Tables};
use proptest::prelude::*;

/// Memory that has some bytes, and nothing elsewhere.
#[derive(Clone, Default)]
struct Image {
    parts: BTreeMap<u64, Vec<u8>>,
}

impl Memory for Image {
    fn bytes(&self, address: u64, len: usize) -> Option<&[u8]> {
        let (start, part) = self.parts.range(..=address).next_back()?;
        part.get(usize::try_from(address - start).ok()?..)?.get(..len)
    }
}

/// Sets the byte that makes all of them add up to 0.
fn add_up(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg();
}

fn table(name: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = [&name[..], &(36 + body.len() as u32).to_le_bytes(), &[revision, 0]].concat();
    bytes.resize(36, b'x');
    bytes.extend(body);
    add_up(&mut bytes, 9);
    bytes
}

fn madt(entries: &[Vec<u8>]) -> Vec<u8> {
    table(b"APIC", 3, &[&0xfee0_0000_u32.to_le_bytes()[..], &[1, 0, 0, 0], &entries.concat()].concat())
}

fn cpu(id: u8, flags: u8) -> Vec<u8> {
    vec![0, 8, id, id, flags, 0, 0, 0]
}

fn cpu_32(id: u32, flags: u8) -> Vec<u8> {
    [&[9, 16, 0, 0][..], &id.to_le_bytes(), &[flags, 0, 0, 0], &[0; 4]].concat()
}

fn srat(revision: u8, entries: &[Vec<u8>]) -> Vec<u8> {
    table(b"SRAT", revision, &[&[0; 12][..], &entries.concat()].concat())
}

fn near(id: u8, domain: u32) -> Vec<u8> {
    let [low, high @ ..] = domain.to_le_bytes();
    [&[0, 16, low, id, 1, 0, 0, 0, 0][..], &high, &[0; 4]].concat()
}

fn near_32(id: u32, domain: u32) -> Vec<u8> {
    [&[2, 24, 0, 0][..], &domain.to_le_bytes(), &id.to_le_bytes(), &[1, 0, 0, 0], &[0; 8]].concat()
}

fn memory(domain: u8) -> Vec<u8> {
    let mut entry = vec![0; 40];
    (entry[0], entry[1], entry[2]) = (1, 40, domain);
    entry
}

fn slit(n: u64, distances: &[u8]) -> Vec<u8> {
    table(b"SLIT", 1, &[&n.to_le_bytes()[..], distances].concat())
}

const ROOT: u64 = 0xf_5a4d;
const LIST: u64 = 0x1ffe_0003;

/// Addresses that nothing is aligned at.
fn place(n: usize) -> u64 {
    0x1fff_0001 + 0x1_0003 * n as u64
}

/// All of it; with a list of addresses of 64 bits, or of 32.
fn image(wide: bool, tables: &[Vec<u8>]) -> Image {
    let mut image = Image::default();
    let mut list = Vec::new();
    for (n, table) in tables.iter().enumerate() {
        image.parts.insert(place(n), table.clone());
        list.extend(&place(n).to_le_bytes()[..if wide { 8 } else { 4 }]);
    }
    image.parts.insert(LIST, table(if wide { b"XSDT" } else { b"RSDT" }, 1, &list));
    image.parts.insert(ROOT, root(wide, LIST));
    image
}

fn root(wide: bool, list: u64) -> Vec<u8> {
    let mut root = [b"RSD PTR \0BOCHS ", &[if wide { 2 } else { 0 }][..]].concat();
    root.extend(if wide { [0; 4] } else { (list as u32).to_le_bytes() });
    add_up(&mut root, 8);
    if wide {
        root.extend(36_u32.to_le_bytes());
        root.extend(list.to_le_bytes());
        root.extend([0; 4]);
        add_up(&mut root, 32);
    }
    root
}

/// Four CPUs on two nodes, and one that may come later; other tables between.
fn good_tables() -> Vec<Vec<u8>> {
    let nmi = vec![4, 6, 0xff, 0, 0, 1];
    let address = [&[5, 12, 0, 0][..], &0xfee0_1000_u64.to_le_bytes()].concat();
    vec![
        table(b"FACP", 3, &[7; 80]),
        madt(&[cpu(0, 1), cpu(2, 1), nmi, cpu(4, 0), address, cpu(6, 1), cpu_32(8, 1), cpu_32(10, 2)]),
        table(b"HPET", 1, &[]),
        srat(3, &[near(0, 7), memory(7), near(2, 0x0102_0304), near(6, 7), near_32(8, 0x0102_0304), near_32(10, 7)]),
        slit(2, &[10, 21, 21, 10]),
    ]
}

/// What a kernel makes of it.
fn read(image: &Image) -> Result<(Vec<(u32, u32)>, u32), Error> {
    let tables = Tables::find(image, ROOT)?;
    let mut cpus = tables.cpus::<8>()?;
    let nodes = tables.place(&mut cpus)?;
    tables.distances()?;
    Ok((cpus.list().iter().map(|cpu| (cpu.apic_id, cpu.node)).collect(), nodes))
}

fn error(tables: &[Vec<u8>]) -> Error {
    read(&image(true, tables)).expect_err("these tables are wrong")
}

#[test]
fn a_good_image_is_read_by_either_list() {
    for wide in [true, false] {
        let image = image(wide, &good_tables());
        let expected = vec![(0, 0), (2, 1), (6, 0), (8, 1), (10, 0)];
        assert_eq!(read(&image), Ok((expected, 2)));
        let tables = Tables::find(&image, ROOT).expect("a good image");
        let mut cpus = tables.cpus::<8>().expect("a good table");
        assert_eq!((cpus.controller, cpus.possible()), (0xfee0_1000, 5));
        assert_eq!(cpus.list().iter().filter(|cpu| cpu.is_enabled).count(), 4);
        assert_eq!(tables.place(&mut cpus), Ok(2));
        assert_eq!(cpus.list()[1].domain, 0x0102_0304);
        assert!(cpus.put_first(6) && !cpus.put_first(4));
        assert_eq!(cpus.list().iter().map(|cpu| cpu.apic_id).collect::<Vec<_>>(), [6, 0, 2, 8, 10]);
        let distances = tables.distances().expect("a good table").expect("it is there");
        assert_eq!((distances.domains(), distances.between(0, 1), distances.between(1, 1)), (2, Some(21), Some(10)));
        assert_eq!((distances.between(0, 2), distances.between(2, 0)), (None, None));
    }
}

#[test]
fn cpus_without_room_are_counted() {
    let image = image(true, &good_tables());
    let tables = Tables::find(&image, ROOT).expect("a good image");
    let mut cpus = tables.cpus::<2>().expect("a good table");
    assert_eq!((cpus.list().len(), cpus.left_out, cpus.possible()), (2, 3, 5));
    assert_eq!(tables.place(&mut cpus), Ok(2));
}

#[test]
fn without_srat_there_is_one_node_and_without_madt_nothing() {
    let only_cpus = image(true, &[madt(&[cpu(0, 1), cpu(1, 1)])]);
    assert_eq!(read(&only_cpus), Ok((vec![(0, 0), (1, 0)], 1)));
    let tables = Tables::find(&only_cpus, ROOT).expect("a good image");
    assert_eq!(tables.distances(), Ok(None));
    assert_eq!(error(&[]), Error::Missing(Name::MADT));
    assert_eq!(error(&[madt(&[cpu(0, 0), cpu(255, 1)])]), Error::NoCpu);
}

#[test]
fn the_first_revision_of_srat_has_narrow_domains() {
    // Revision 1 has anything in the high bytes.
    let entries = [near(0, 0x0a00_0001), near(1, 0x0b00_0001)];
    for (revision, nodes) in [(1, 1), (2, 2)] {
        let image = image(true, &[madt(&[cpu(0, 1), cpu(1, 1)]), srat(revision, &entries)]);
        assert_eq!(read(&image).map(|(_, nodes)| nodes), Ok(nodes));
    }
}

#[test]
fn every_truncation_is_an_error() {
    for wide in [true, false] {
        let good = image(wide, &good_tables());
        let mut cuts = 0;
        for (address, part) in &good.parts {
            // What is in the others is of no interest.
            let is_read = |name: &[u8; 4]| part.starts_with(name);
            if ![b"RSD ", b"XSDT", b"RSDT", b"APIC", b"SRAT", b"SLIT"].into_iter().any(is_read) {
                continue;
            }
            for len in 0..part.len() {
                let mut cut = good.clone();
                cut.parts.insert(*address, part[..len].to_vec());
                assert!(read(&cut).is_err(), "{address:#x} cut to {len} of {}", part.len());
                cuts += 1;
            }
        }
        assert!(cuts > 300, "{cuts}");
    }
}

#[test]
fn a_table_that_says_a_wrong_length_is_refused() {
    for which in [1, 3, 4] {
        let whole = good_tables()[which].len() as u32;
        for len in (0..whole).chain([whole + 1, 1 << 20, u32::MAX]) {
            let mut tables = good_tables();
            tables[which][4..8].copy_from_slice(&len.to_le_bytes());
            add_up(&mut tables[which], 9);
            // Summed over what it says, too: only the length is wrong, and so what it covers.
            if (36..whole).contains(&len) {
                add_up(&mut tables[which][..len as usize], 9);
            }
            assert!(read(&image(true, &tables)).is_err() || which == 1 && len < whole, "{which} of {len}");
        }
    }
    // No list is shorter than its header.
    for len in 0..36_u32 {
        let mut image = image(true, &good_tables());
        let list = image.parts.get_mut(&LIST).expect("the list");
        list[4..8].copy_from_slice(&len.to_le_bytes());
        add_up(list, 9);
        assert_eq!(read(&image), Err(Error::Length { table: Name::XSDT, len: len.into() }));
    }
    // A list that ends early knows less, unless it ends within an entry.
    let mut image = image(true, &good_tables());
    let list = image.parts.get_mut(&LIST).expect("the list");
    list[4..8].copy_from_slice(&(36_u32 + 12).to_le_bytes());
    add_up(&mut list[..48], 9);
    assert_eq!(read(&image), Err(Error::Length { table: Name::XSDT, len: 48 }));
}

#[test]
fn every_wrong_bit_of_a_table_is_seen() {
    let goods = [true, false].map(|wide| image(wide, &good_tables()));
    for (good, (address, part)) in goods.iter().flat_map(|good| good.parts.iter().map(move |part| (good, part))) {
        let is_read = |name: &[u8; 4]| part.starts_with(name);
        if ![b"RSD ", b"XSDT", b"RSDT", b"APIC", b"SRAT", b"SLIT"].into_iter().any(is_read) {
            continue;
        }
        // In the name it is another table, which nobody asks for.
        for bit in 32..8 * part.len() {
            let mut other = good.clone();
            other.parts.get_mut(address).expect("it is there")[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&other).is_err(), "bit {bit} at {address:#x}");
        }
    }
}

#[test]
fn lies_are_refused() {
    let [cpus, srat_of] = [
        |entries: &[Vec<u8>]| vec![madt(entries)],
        |entries: &[Vec<u8>]| vec![madt(&[cpu(0, 1), cpu(1, 1)]), srat(3, entries)],
    ];
    let slit_of = |n, distances: &[u8]| vec![madt(&[cpu(0, 1)]), slit(n, distances)];
    let entry = |table, offset| Error::Entry { table, offset };
    let same = |table, apic_id| Error::SameCpu { table, apic_id };
    for (tables, expected) in [
        (cpus(&[cpu(0, 1), vec![0, 0]]), entry(Name::MADT, 52)),
        (cpus(&[cpu(0, 1), vec![77, 1]]), entry(Name::MADT, 52)),
        (cpus(&[cpu(0, 1), vec![0]]), entry(Name::MADT, 52)),
        (cpus(&[cpu(0, 1), vec![77, 200, 0]]), entry(Name::MADT, 52)),
        (cpus(&[vec![0, 7, 0, 0, 1, 0, 0]]), entry(Name::MADT, 44)),
        (cpus(&[vec![9, 8, 0, 0, 1, 0, 0, 0]]), entry(Name::MADT, 44)),
        (cpus(&[vec![5, 4, 0, 0]]), entry(Name::MADT, 44)),
        (cpus(&[cpu(3, 1), cpu(4, 1), cpu(3, 2)]), same(Name::MADT, 3)),
        (cpus(&[cpu_32(900, 1), cpu_32(900, 1)]), same(Name::MADT, 900)),
        (vec![table(b"APIC", 3, &[0; 7])], Error::Length { table: Name::MADT, len: 43 }),
        (vec![madt(&[cpu(0, 1)]), madt(&[cpu(0, 1)])], Error::Twice { table: Name::MADT }),
        (srat_of(&[near(0, 1)]), Error::NoDomain { apic_id: 1 }),
        (srat_of(&[near(0, 1), near(1, 1), near(0, 2)]), same(Name::SRAT, 0)),
        (srat_of(&[near(0, 1), near_32(1, 1), vec![2, 16]]), entry(Name::SRAT, 88)),
        (srat_of(&[vec![1, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]), entry(Name::SRAT, 48)),
        (vec![madt(&[cpu(0, 1)]), table(b"SRAT", 3, &[0; 11])], Error::Length { table: Name::SRAT, len: 47 }),
        (slit_of(2, &[10, 20, 20]), Error::Length { table: Name::SLIT, len: 47 }),
        (slit_of(2, &[10, 20, 20, 10, 10]), Error::Length { table: Name::SLIT, len: 49 }),
        (slit_of(1 << 32, &[]), Error::Length { table: Name::SLIT, len: 44 }),
        (slit_of(0xffff_ffff, &[10]), Error::Length { table: Name::SLIT, len: 45 }),
        (slit_of(2, &[10, 20, 9, 10]), Error::Distance { from: 1, to: 0, distance: 9 }),
        (slit_of(2, &[10, 20, 20, 11]), Error::Distance { from: 1, to: 1, distance: 11 }),
    ] {
        assert_eq!(error(&tables), expected, "{expected}");
    }
}

#[test]
fn a_wrong_table_costs_only_what_it_says() {
    let mut tables = good_tables();
    tables[3][40] ^= 1;
    tables[4][40] ^= 1;
    let image = image(true, &tables);
    let tables = Tables::find(&image, ROOT).expect("a good list");
    let mut cpus = tables.cpus::<8>().expect("a good table");
    assert_eq!(tables.place(&mut cpus), Err(Error::Sum { table: Name::SRAT }));
    assert!(cpus.list().len() == 5 && cpus.list().iter().all(|cpu| cpu.node == 0));
    assert_eq!(tables.distances(), Err(Error::Sum { table: Name::SLIT }));
}

#[test]
fn a_wrong_srat_leaves_all_cpus_where_they_were() {
    let image = image(true, &[madt(&[cpu(0, 1), cpu(1, 1)]), srat(3, &[near(0, 3), near(1, 4), vec![0, 3, 0]])]);
    let tables = Tables::find(&image, ROOT).expect("a good list");
    let mut cpus = tables.cpus::<8>().expect("a good table");
    assert_eq!(tables.place(&mut cpus), Err(Error::Entry { table: Name::SRAT, offset: 80 }));
    assert!(cpus.list().iter().all(|cpu| (cpu.node, cpu.domain) == (0, 0)));
}

#[test]
fn a_list_that_leads_nowhere_or_to_itself() {
    let mut cyclic = image(true, &good_tables());
    let entries: Vec<u8> = [place(1), LIST].iter().flat_map(|address| address.to_le_bytes()).collect();
    cyclic.parts.insert(LIST, table(b"XSDT", 1, &entries));
    assert_eq!(read(&cyclic), Err(Error::Cycle { address: LIST }));

    // The root pointer as the list: a circle, and no list.
    let mut image = image(true, &good_tables());
    image.parts.insert(ROOT, root(true, ROOT));
    assert_eq!(read(&image), Err(Error::Signature { table: Name::XSDT, address: ROOT }));
    let read_at = |address| Tables::find(&image, address).map(drop);
    for address in [0, u64::MAX, LIST] {
        assert!(read_at(address).is_err());
    }
    assert_eq!(read_at(LIST), Err(Error::Signature { table: Name::RSDP, address: LIST }));

    // What the list names is no memory; it may have been the one that is missing.
    let mut image = image.clone();
    image.parts.insert(ROOT, root(true, LIST));
    for address in [1_u64, u64::MAX, u64::MAX - 2] {
        let entries: Vec<u8> = [place(1), address].iter().flat_map(|address| address.to_le_bytes()).collect();
        image.parts.insert(LIST, table(b"XSDT", 1, &entries));
        assert_eq!(read(&image), Err(Error::NotMemory { table: Name::XSDT, address, len: 4 }));
    }
    // A gap is none.
    let entries: Vec<u8> = [0, place(1)].iter().flat_map(|address| address.to_le_bytes()).collect();
    image.parts.insert(LIST, table(b"XSDT", 1, &entries));
    assert!(read(&image).is_ok());
}

/// What is called for any input: only its ending without a panic is of interest, and that it does end.
fn try_all(image: &Image, root: u64) {
    let Ok(tables) = Tables::find(image, root) else { return };
    let _ = tables.distances().map(|distances| distances.map(|distances| distances.between(1, 1)));
    let Ok(mut cpus) = tables.cpus::<3>() else { return };
    let nodes = tables.place(&mut cpus);
    let highest = cpus.list().iter().map(|cpu| cpu.node).max().unwrap_or(0);
    assert!(nodes.map_or(highest == 0, |nodes| highest < nodes));
    cpus.put_first(1);
}

proptest! {
    #[test]
    fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), start in any::<u64>()) {
        let parts = [(start, [b"RSD PTR ", &bytes[..]].concat())].into();
        try_all(&Image { parts }, start);
    }

    /// Bodies of any kind, in tables whose sums are right.
    #[test]
    fn no_table_causes_a_panic(
        bodies in prop::collection::vec((0_usize..4, any::<u8>(), prop::collection::vec(any::<u8>(), 0..120)), 0..5),
        wide: bool,
    ) {
        let names = [b"APIC", b"SRAT", b"SLIT", b"XSDT"];
        let tables: Vec<_> = bodies.iter().map(|(name, revision, body)| table(names[*name], *revision, body)).collect();
        try_all(&image(wide, &tables), ROOT);
    }

    /// Entries that are right in form, with anything in them.
    #[test]
    fn no_entries_cause_a_panic(
        cpus in prop::collection::vec((0_u8..12, any::<u8>(), any::<bool>()), 0..12),
        places in prop::collection::vec((0_u8..12, any::<u32>(), any::<bool>()), 0..12),
        distances in prop::collection::vec(9_u8..12, 0..10),
    ) {
        let cpu = |(id, flags, wide)| if wide { cpu_32(u32::from(id), flags) } else { cpu(id, flags) };
        let near = |(id, domain, wide)| if wide { near_32(u32::from(id), domain) } else { near(id, domain) };
        let cpus: Vec<_> = cpus.into_iter().map(cpu).collect();
        let places: Vec<_> = places.into_iter().map(near).collect();
        try_all(&image(true, &[madt(&cpus), srat(3, &places), slit(3, &distances)]), ROOT);
    }

    /// A good image with some bytes changed, and the sums made right again: only the checks of contents are left.
    #[test]
    fn no_change_causes_a_panic(changes in prop::collection::vec((0_usize..6, any::<usize>(), any::<u8>()), 1..6)) {
        let mut image = image(true, &good_tables());
        for (which, at, value) in changes {
            let part = image.parts.values_mut().nth(which).expect("there are seven");
            let at = at % part.len();
            part[at] = value;
            if part.len() >= 36 && !part.starts_with(b"RSD ") {
                let len = u32::from_le_bytes(part[4..8].try_into().expect("four")) as usize;
                let len = if (36..=part.len()).contains(&len) { len } else { part.len() };
                add_up(&mut part[..len], 9);
            }
        }
        try_all(&image, ROOT);
    }
}
