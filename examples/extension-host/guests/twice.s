; Takes the same lock twice, counts itself, unlocks once. Returns what the second time gave.
        mov r1, delta
        call lock
        jslt r0, 0, out
        mov r1, delta
        call lock
        mov r6, r0
        mov r1, delta
        mov r2, 0
        call lookup
        add r0, 1
        mov r3, r0
        mov r1, delta
        mov r2, 0
        call update
        mov r1, delta
        call unlock
        mov r0, r6
out:    exit
