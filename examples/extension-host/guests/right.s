; Moves something from alpha to beta: takes the lock of beta, then that of alpha. The other mover takes them
; the other way round. Who is refused gives up what it has, and begins again.
        mov r8, 1               ; meet once
begin:  mov r1, beta
        call lock
        jslt r0, 0, retry
        jeq r8, 0, second
        mov r8, 0
        call meet               ; both hold their first lock now
second: mov r1, alpha
        call lock
        jslt r0, 0, back
        mov r1, beta
        mov r2, 0
        call lookup
        add r0, 5
        mov r3, r0
        mov r1, beta
        mov r2, 0
        call update
        mov r1, alpha
        mov r2, 0
        call lookup
        sub r0, 5
        mov r3, r0
        mov r1, alpha
        mov r2, 0
        call update
        mov r1, alpha
        call unlock
        mov r1, beta
        call unlock
        mov r0, 1
        exit
back:   mov r1, beta
        call unlock
retry:  call again
        jne r0, 0, begin
        mov r0, 0
        exit
