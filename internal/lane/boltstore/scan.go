package boltstore

import (
	"errors"
	"io"
)

// scan takes what is found in any page that looks like a leaf. In a page with wrong elements the others may be right.
func (v *salvage) scan(take func(k, value []byte) error) error {
	const chunk = 256
	buf := make([]byte, chunk*pageSize)
	for at := int64(0); at < v.size; at += int64(len(buf)) {
		n, err := v.src.ReadAt(buf[:min(int64(len(buf)), v.size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			n = v.readAround(buf[:min(int64(len(buf)), v.size-at)], at)
		}
		for i := 0; i+headerSize <= n; i += pageSize {
			// A copy, since what is put must stay as it is.
			if data := v.leafAt(buf[i:min(i+pageSize, n)], at+int64(i)); data != nil {
				if err := takeLeaf(data, take); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// readAround reads a chunk page by page, with zeros for what cannot be read.
func (v *salvage) readAround(buf []byte, at int64) int {
	clear(buf)
	for i := 0; i < len(buf); i += pageSize {
		p := buf[i:min(i+pageSize, len(buf))]
		if _, err := v.src.ReadAt(p, at+int64(i)); err != nil && !errors.Is(err, io.EOF) {
			clear(p)
		}
	}
	return len(buf)
}

// leafAt returns a copy of a page if it looks like a leaf, with those that it overflows to.
func (v *salvage) leafAt(head []byte, at int64) []byte {
	overflow := order.Uint32(head[12:])
	if order.Uint16(head[8:]) != leafFlag || overflow >= maxRun {
		return nil
	}
	data := make([]byte, min(int64(overflow+1)*pageSize, v.size-at))
	if overflow == 0 {
		return data[:copy(data, head)]
	}
	n, _ := v.src.ReadAt(data, at)
	return data[:n]
}

// takeLeaf takes what lies within a page.
func takeLeaf(data []byte, take func(k, value []byte) error) error {
	p := &page{leaf: true, data: data, count: int(order.Uint16(data[10:]))}
	p.count = min(p.count, (len(data)-headerSize)/elemSize)
	for i := range p.count {
		if !framed(data, true, i, 0) || len(p.key(i)) == 0 {
			continue
		}
		value, bucket := p.value(i)
		if bucket {
			if inner := value; len(inner) >= 2*headerSize && order.Uint64(inner) == 0 {
				// A small bucket is a page within its header.
				if err := takeLeaf(inner[16:], take); err != nil {
					return err
				}
			}
			continue
		}
		if err := take(p.key(i), value); err != nil && !isDamage(err) {
			return err
		}
	}
	return nil
}

// takeOldRow takes names, and states and notes for which there is no newer one. Not marks: one that is not true any
// more would make a device's new message pass for one that came before.
func (v *salvage) takeOldRow(k, value []byte) error {
	if len(value) == 0 {
		return nil
	}
	switch value[0] {
	case kindName:
		if id, key, ok := parseName(k, value); ok && v.names[id].Device == "" {
			v.names[id] = key
		}
	case kindNote:
		if v.damagedAt[noteBucket] {
			return v.takeNote(k, value)
		}
	case kindState:
		key, okKey := parseLaneKey(k)
		r, ok := parseRow(k, value)
		if !okKey || !ok {
			return nil
		}
		v.names[r.id] = key
		if old := v.rows[r.id]; old == nil || !old.sure && old.change < r.change {
			v.rows[r.id] = &foundRow{row: r, known: true}
		}
	}
	return nil
}

// takeOldMessage takes what a lane lacks. Some of it may have been dropped or delivered: better twice than lost.
func (v *salvage) takeOldMessage(k, value []byte) error {
	p, value, ok := part(k, value)
	if !ok {
		return nil
	}
	r := v.rowOf(p)
	switch {
	case r == nil, r.known && p.seq < r.state.Head:
		return nil
	case r.sure && (r.have >= r.state.Queued || p.seq >= r.state.Next), !r.sure && !v.holes():
		return nil
	}
	return v.out.put(messageBucket, p.key(), value)
}
